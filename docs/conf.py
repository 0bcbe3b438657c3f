import warnings
from importlib.metadata import version as installed_version

warnings.filterwarnings("ignore", category=FutureWarning, module="arviz")

project = "pyro_amortized"
author = "The pyro_amortized developers"
copyright = "2026, the pyro_amortized developers"
release = installed_version("pyro-amortized")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
html_theme = "furo"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autoclass_content = "class"
napoleon_google_docstring = True
nitpick_ignore_regex = [("py:.*", r"(torch|pyro|numpy|matplotlib|arviz|nn|collections)\..*")]
