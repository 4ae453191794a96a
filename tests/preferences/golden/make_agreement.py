"""Makes agreement.json with the libraries `krippendorff` and `crowd-kit`, which the tests do not need.

pip install krippendorff crowd-kit && python tests/preferences/golden/make_agreement.py
"""

import json
from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
from crowdkit.aggregation import DawidSkene

rng = np.random.default_rng(7)
RATES = (0.05, 0.15, 0.3, 0.4)
truth = rng.integers(0, 3, 60)
votes = []
for item in range(60):
    for annotator in range(4):
        if rng.random() < 0.8:
            right = rng.random() > RATES[annotator]
            votes.append((item, annotator, int(truth[item] if right else (truth[item] + rng.integers(1, 3)) % 3)))
values = np.full((4, 60), np.nan)
for item, annotator, label in votes:
    values[annotator, item] = label
frame = pd.DataFrame(votes, columns=["task", "worker", "label"])
model = DawidSkene(n_iter=200, tol=0.0).fit(frame)
errors = model.errors_.sort_index()
golden = {
    "votes": votes,
    "alpha": float(krippendorff.alpha(reliability_data=values, level_of_measurement="nominal")),
    "labels": [int(label) for label in model.labels_.sort_index()],
    "probabilities": model.probas_.sort_index()[[0, 1, 2]].round(6).to_numpy().tolist(),
    "correct": [float(np.mean([errors.loc[(worker, label), label] for label in range(3)])) for worker in range(4)],
}
(Path(__file__).parent / "agreement.json").write_text(json.dumps(golden) + "\n")
