"""Pages of the gallery from the examples: ``python scripts/gallery.py [--run NAME,...] [--check]``.

Every example of the list is a script that writes a figure. The docstring of the script is the text
of its page. ``--run`` makes figures anew (minutes each). ``--check`` fails where a page differs from
what the scripts give.
"""

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIGURES, PAGES = ROOT / "docs" / "figures" / "gallery", ROOT / "docs" / "gallery"
# Name of the page: script, figure that it writes, title, what it shows.
EXAMPLES = {
    "theophylline": (
        "theophylline.py", "individual_fits.png", "Theophylline",
        "The fit agrees with the exact maximum likelihood within the Monte Carlo error.",
    ),
    "warfarin": (
        "pharmacometrics/warfarin.py", "warfarin_concentration.png", "Warfarin, concentrations",
        "One compartment with combined error of 32 individuals: training takes minutes, the fit seconds.",
    ),
    "warfarin_turnover": (
        "pharmacometrics/warfarin_turnover.py", "warfarin_turnover_pca.png", "Warfarin, PK/PD",
        "Two endpoints, each with its own times, are computed from one compiled ODE.",
    ),
    "phenobarbital": (
        "pharmacometrics/phenobarbital.py", "phenobarbital_concentration.png",
        "Phenobarbital with weight",
        "One to six samples per neonate are enough for a model with weight on clearance and volume.",
    ),
    "censored": (
        "pharmacometrics/theophylline_censored.py", "theophylline_censored_concentration.png",
        "Below the limit of quantification",
        "A value below the limit enters the likelihood as less than the limit (method M3).",
    ),
    "single_cells": (
        "gallery/single_cells.py", "single_cells.png", "Single cells",
        "The draws contain both modes of the posterior of every cell.",
    ),
    "two_experiments": (
        "gallery/two_experiments.py", "two_experiments.png", "Two experiments in one fit",
        "One guide serves two designs, and one parameter is specific to each study.",
    ),
    "seizures": (
        "gallery/seizures.py", "seizures.png", "Regression without dynamics",
        "A Poisson model with random intercepts is fitted by `AmortizedMCMC` in place of MCMC.",
    ),
    "seizure_counts": (
        "gallery/seizure_counts.py", "seizure_counts.png", "Counts",
        "Three distributions of counts are compared by their exact likelihood.",
    ),
    "pain_scores": (
        "gallery/pain_scores.py", "pain_scores.png", "Categories that depend on the one before",
        "A Markov chain in continuous time, in which missing scores are summed over.",
    ),
    "joint_model": (
        "gallery/joint_model.py", "joint_model.png", "A marker and the time of death",
        "The current value of the marker acts on the hazard, and nothing is measured after the event.",
    ),
    "competing_causes": (
        "gallery/competing_causes.py", "competing_causes.png", "Competing causes",
        "Of death and relapse only the first is seen, and cumulative incidences show the share of each.",
    ),
    "sites": (
        "gallery/sites.py", "sites.png", "Sites above individuals",
        "Individuals are integrated out exactly, and so are the effects of the sites they share.",
    ),
    "occasions": (
        "gallery/occasions.py", "occasions.png", "Occasions within individuals",
        "The closed form carries over what an occasion has left, as the ODE does.",
    ),
    "fitzhugh_nagumo": (
        "missing_data/fitzhugh_nagumo.py", "fitzhugh_nagumo.png", "FitzHugh-Nagumo with missing values",
        "Up to half of the times are missing, and the prior of the parameters is bounded.",
    ),
    "sir": (
        "missing_data/sir.py", "sir.png", "An epidemic by an ODE and by stochastic steps",
        "The same calls train a guide for the ODE and for the stochastic simulation without a density.",
    ),
    "recording": (
        "missing_data/recording.py", "recording.png", "Missing not at random",
        "Whether a value is recorded carries information, and the model describes it.",
    ),
    "imputation": (
        "missing_data/imputation.py", "imputation.png", "Imputation",
        "Linear interpolation of missing values gives biased means and intervals that are too narrow.",
    ),
    "regimens": (
        "after_fit/regimens.py", "regimens.png", "Dosing regimens of warfarin",
        "The loading dose reaches the target in the first days, and a rule brings more individuals into its range.",
    ),
    "individual_dose": (
        "after_fit/individual_dose.py", "individual_dose.png", "A dose for one patient",
        "Two samples narrow the dose, and a third one is taken into account without new draws where they suffice.",
    ),
    "model_search": (
        "after_fit/model_search.py", "model_search.png", "Search for covariates",
        "From a model without covariates, the search finds the weight on clearance and volume.",
    ),
    "changing_covariates": (
        "after_fit/changing_covariates.py", "changing_covariates.png",
        "Search for covariates that vary over time",
        "Coefficients that the fit holds are tested and estimated like other candidates.",
    ),
    "missing_covariate": (
        "missing_data/missing_covariate.py", "missing_covariate.png", "A covariate that some lack",
        "Missing weights are integrated out, and no individual is left out.",
    ),
    "study_design": (
        "after_fit/study_design.py", "study_design.png", "Designs of a study",
        "Half of the samples cost little for clearance and much for the residual error.",
    ),
}  # fmt: skip


def make_figure(name: str) -> None:
    """Run an example and keep its figure."""
    script, figure, _, _ = EXAMPLES[name]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "examples" / script), "--output", folder]
        subprocess.run(command, check=True)
        FIGURES.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / figure, FIGURES / f"{name}.png")


def one_sentence_a_line(text: str) -> str:
    """Paragraphs whose lines are sentences."""
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(re.sub(r"(?<=\.) (?=[A-Z])", "\n", part) for part in paragraphs)


def pages() -> dict[Path, str]:
    """Content of every page."""
    cards, contents = [], {}
    for name, (script, _, title, shows) in EXAMPLES.items():
        doc = ast.get_docstring(ast.parse((ROOT / "examples" / script).read_text("utf-8"))) or ""
        contents[PAGES / f"{name}.md"] = (
            f"# {title}\n\n{one_sentence_a_line(doc)}\n\n```{{image}} ../figures/gallery/{name}.png\n:alt: {title}\n```\n\n"
            f"{shows}\nTo run it: `.venv/bin/python examples/{script}`.\n\n"
            f"```{{literalinclude}} ../../examples/{script}\n:language: python\n```\n"
        )
        cards.append(
            f"## {title}\n\n[{shows}](gallery/{name}.md)\n\n"
            f"```{{image}} figures/gallery/{name}.png\n:alt: {title}\n:width: 320px\n"
            f":target: gallery/{name}.html\n```\n"
        )
    names = "\n".join(f"gallery/{name}" for name in EXAMPLES)
    intro = (
        "# Gallery\n\nEvery example is a script of less than 120 lines.\nThe tests run all of them "
        "with a small budget.\n"
    )
    toc = f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    contents[ROOT / "docs" / "gallery.md"] = "\n".join([intro, toc, *cards])
    return contents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="", help="names, separated by commas")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for name in filter(None, arguments.run.split(",")):
        make_figure(name)
    old = [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_text("utf-8") != text
    ]
    if arguments.check and old:
        raise SystemExit(f"not up to date: {[str(p.relative_to(ROOT)) for p in old]}")
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
