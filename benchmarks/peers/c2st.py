"""Classifier two-sample tests as in sbibm: a small perceptron, five folds; 0.5 is indistinguishable.

Runs in an environment with scikit-learn (that of sbi has it): reads an npz with pairs ``a0, b0, a1,
b1, ..``, prints one accuracy per line.
"""

import sys

import numpy as np
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

data = np.load(sys.argv[1])
for j in range(len(data.files) // 2):
    one, other = data[f"a{j}"], data[f"b{j}"]
    mean, sd = one.mean(0), one.std(0)
    rows = np.concatenate([(one - mean) / sd, (other - mean) / sd])
    labels = np.concatenate([np.zeros(len(one)), np.ones(len(other))])
    width = 10 * one.shape[1]
    classifier = MLPClassifier((width, width), activation="relu", max_iter=1000, random_state=1)
    folds = KFold(5, shuffle=True, random_state=1)
    print(float(cross_val_score(classifier, rows, labels, cv=folds).mean()), flush=True)
