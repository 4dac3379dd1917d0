"""Computes from embeddings what `dari evaluate` must report: an independent reference, numpy alone.

    python parity/evaluate.py zero-shot --pictures P.npy --classes C.npy --labels LABELS.json
    python parity/evaluate.py retrieval --pictures P.npy --texts T.npy --pairs PAIRS.json
    python parity/evaluate.py linear-probe --train A.npy --train-labels A.json --test B.npy --test-labels B.json \\
        --lambda 0.01 [--standardise] [--check]
    python parity/evaluate.py --make        # writes fixtures/parity/evaluate

Prints one JSON object. README.md beside this file, "Evaluation", says how each number is defined. All is computed
in float64. --check holds the linear probe against scikit-learn, the only part that needs more than numpy.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "parity" / "evaluate"
SEED = 20261164  # with this one no two scores nearly tie, and how ties are broken shows in the numbers
NEAR = 2e-5  # scores of the example are equal or further apart than this

Json = dict[str, Any]


# Ranks


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows at length 1; a row of zeros stays as it is."""
    lengths = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    return vectors / np.where(lengths == 0, 1, lengths)


def cosines(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Cosines of every row with every column. Not a matrix product: that may sum equal vectors in different
    orders, and two that are equal must tie."""
    rows, columns = unit(rows), unit(columns)
    return np.stack([(columns * row).sum(axis=1) for row in rows])


def ranks(scores: np.ndarray) -> np.ndarray:
    """Each column's place in its row, the best at 0; of equal scores the lower column comes first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(scores.shape[1])[None, :], axis=1)
    return places


def mean_per_class(right: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the classes' own accuracies, over the classes that have a picture."""
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


# Zero-shot


def zero_shot(pictures: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> Json:
    """`classes` is [classes, templates, width]."""
    if labels.min() < 0 or labels.max() >= len(classes):
        raise SystemExit(f"labels must lie between 0 and {len(classes) - 1}")
    vectors = unit(classes).mean(axis=1)
    places = ranks(cosines(pictures, vectors))[np.arange(len(pictures)), labels]
    return {
        "pictures": len(pictures),
        "classes": len(classes),
        "classes_with_pictures": len(np.unique(labels)),
        "top_1": float((places < 1).mean()),
        "top_5": float((places < 5).mean()),
        "mean_per_class": mean_per_class(places < 1, labels),
    }


# Retrieval


def retrieval(pictures: np.ndarray, texts: np.ndarray, pairs: np.ndarray) -> Json:
    """`pairs` gives each text's picture."""
    if pairs.min() < 0 or pairs.max() >= len(pictures):
        raise SystemExit(f"pairs must lie between 0 and {len(pictures) - 1}")
    scores = cosines(texts, pictures)
    of_texts = ranks(scores)[np.arange(len(texts)), pairs]
    text_places = ranks(scores.T)
    with_texts = np.unique(pairs)
    of_pictures = np.array([text_places[picture, pairs == picture].min() for picture in with_texts])
    return {
        "pictures": len(pictures),
        "pictures_with_texts": len(with_texts),
        "texts": len(texts),
        "text_to_picture": recalls(of_texts),
        "picture_to_text": recalls(of_pictures),
    }


def recalls(places: np.ndarray) -> Json:
    return {f"recall_at_{k}": float((places < k).mean()) for k in (1, 5, 10)}


# Linear probe


class Probe:
    """Mean cross entropy of softmax(x W + b), plus lambda / 2 times the squares of W. The parameters are one
    flat vector: W row by row, then b."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, classes: int, decay: float) -> None:
        self.features, self.targets, self.decay = features, targets, decay
        self.shape = (features.shape[1], classes)
        self.right = np.eye(classes)[targets]

    def parts(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width, classes = self.shape
        return parameters[: width * classes].reshape(self.shape), parameters[width * classes :]

    def start(self) -> np.ndarray:
        return np.zeros((self.shape[0] + 1) * self.shape[1])

    def logits(self, parameters: np.ndarray, features: np.ndarray) -> np.ndarray:
        weights, bias = self.parts(parameters)
        return features @ weights + bias

    def value_and_gradient(self, parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, _ = self.parts(parameters)
        logits = self.logits(parameters, self.features)
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        sums = exponentials.sum(axis=1)
        entropy = np.log(sums) - (logits * self.right).sum(axis=1)
        value = entropy.mean() + self.decay / 2 * (weights * weights).sum()
        errors = (exponentials / sums[:, None] - self.right) / len(self.features)
        of_weights = self.features.T @ errors + self.decay * weights
        return float(value), np.concatenate([of_weights.ravel(), errors.sum(axis=0)])


def minimise(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    tolerance: float = 1e-9,
    memory: int = 20,
    limit: int = 20_000,
) -> tuple[np.ndarray, float, int]:
    """L-BFGS for a smooth convex function, until the gradient's length is at most `tolerance` times the value (or
    times 1, where the value is less). Gives the place, the value and the steps taken."""
    place, steps = start, []
    value, gradient = function(place)
    for step in range(limit):
        if np.linalg.norm(gradient) <= tolerance * max(1.0, abs(value)):
            return place, value, step
        direction = -inverse_hessian_times(gradient, steps)
        if gradient @ direction >= 0:
            steps, direction = [], -gradient
        last, last_gradient = place, gradient
        place, value, gradient = search(function, place, value, gradient, direction)
        moved, changed = place - last, gradient - last_gradient
        if moved @ changed > 0:
            steps = [*steps, (moved, changed)][-memory:]
    raise SystemExit(f"the linear probe has not converged in {limit} steps; a larger --lambda makes it easier")


def inverse_hessian_times(gradient: np.ndarray, steps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """L-BFGS's two loops over the remembered steps."""
    found, shares = gradient.copy(), []
    for moved, changed in reversed(steps):
        share = (moved @ found) / (moved @ changed)
        shares.append(share)
        found -= share * changed
    if steps:
        moved, changed = steps[-1]
        found *= (moved @ changed) / (changed @ changed)
    for (moved, changed), share in zip(steps, reversed(shares), strict=True):
        found += (share - (changed @ found) / (moved @ changed)) * moved
    return found


def search(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    place: np.ndarray,
    value: float,
    gradient: np.ndarray,
    direction: np.ndarray,
) -> tuple[np.ndarray, float, np.ndarray]:
    """A step along `direction` that at least halves the slope and does not climb. Near the end the values
    differ by rounding alone, so it is the slope that leads; a convex function's only rises."""
    slope = gradient @ direction
    low, high, length = 0.0, np.inf, 1.0
    for _ in range(100):
        found, found_gradient = function(place + length * direction)
        found_slope = found_gradient @ direction
        if found > value + 1e-13 * abs(value) or found_slope > -0.5 * slope:
            high = length
        elif found_slope < 0.5 * slope:
            low = length
        else:
            break
        length = 2 * length if high == np.inf else (low + high) / 2
    return place + length * direction, found, found_gradient


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    decay: float,
    standardise: bool,
    check: bool = False,
) -> Json:
    if decay <= 0:
        raise SystemExit("--lambda must be above 0: without it there may be no least value")
    if min(train_labels.min(), test_labels.min()) < 0:
        raise SystemExit("labels must not be negative")
    if standardise:
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        deviation[train.min(axis=0) == train.max(axis=0)] = 1
        train, test = (train - mean) / deviation, (test - mean) / deviation
    # A class without pictures in train has no least value of its bias; it takes no part and is never said.
    known, targets = np.unique(train_labels, return_inverse=True)
    probe = Probe(train, targets, len(known), decay)
    place, value, steps = minimise(probe.value_and_gradient, probe.start())
    found: Json = {"lambda": decay, "standardise": standardise, "classes_in_train": len(known)}
    for name, features, labels in (("train", train, train_labels), ("test", test, test_labels)):
        right = known[probe.logits(place, features).argmax(axis=1)] == labels
        found[name] = {
            "pictures": len(features),
            "top_1": float(right.mean()),
            "mean_per_class": mean_per_class(right, labels),
        }
    found["objective"] = value
    if check:
        found["check"] = {"steps": steps} | beside_scikit_learn(probe, place)
    return found


def beside_scikit_learn(probe: Probe, place: np.ndarray) -> Json:
    """How far scikit-learn's own solution is, its biases moved so that they have our mean."""
    from sklearn.linear_model import LogisticRegression

    # Of two classes it makes one sigmoid, whose weight is the difference of softmax's two.
    two = 2 if probe.shape[1] == 2 else 1
    strength = two / (len(probe.features) * probe.decay)
    model = LogisticRegression(C=strength, tol=1e-12, max_iter=100_000).fit(probe.features, probe.targets)
    weights, bias = model.coef_.T, model.intercept_
    if two == 2:
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.concatenate([-bias / 2, bias / 2])
    ours, our_bias = probe.parts(place)
    theirs = np.concatenate([weights.ravel(), bias - bias.mean() + our_bias.mean()])
    return {
        "gradient": float(np.linalg.norm(probe.value_and_gradient(place)[1])),
        "scikit_learn_objective": probe.value_and_gradient(theirs)[0],
        "scikit_learn_gradient": float(np.linalg.norm(probe.value_and_gradient(theirs)[1])),
        "largest_difference_of_weights": float(np.abs(weights - ours).max()),
    }


# The example


def make() -> Json:
    """Writes the inputs, and what this script says of the files as they lie there."""
    draw = np.random.default_rng(SEED)
    make_zero_shot(FIXTURES / "zero-shot", draw)
    make_retrieval(FIXTURES / "retrieval", draw)
    make_linear_probe(FIXTURES / "linear-probe", draw)
    probe = {"train": "train.npy", "train_labels": "train-labels.json", "test": "test.npy",
             "test_labels": "test-labels.json", "decay": 0.02}  # fmt: skip
    expected = {
        "zero-shot": run("zero-shot", {"pictures": "pictures.npy", "classes": "classes.npy", "labels": "labels.json"}),
        "retrieval": run("retrieval", {"pictures": "pictures.npy", "texts": "texts.npy", "pairs": "pairs.json"}),
        "linear-probe": run("linear-probe", probe | {"standardise": False}),
        "linear-probe-standardised": run("linear-probe", probe | {"standardise": True}),
    }
    for scores in example_scores():
        refuse_near_ties(scores)
    (FIXTURES / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return expected


def run(task: str, options: Json) -> Json:
    """A task on the example's files."""
    folder = FIXTURES / task
    return evaluate(task, {name: folder / item if isinstance(item, str) else item for name, item in options.items()})


def example_scores() -> list[np.ndarray]:
    vectors = {name: read_vectors(FIXTURES / "retrieval" / f"{name}.npy") for name in ("pictures", "texts")}
    of_texts = cosines(vectors["texts"], vectors["pictures"])
    classes = read_vectors(FIXTURES / "zero-shot" / "classes.npy", dimensions=3)
    pictures = read_vectors(FIXTURES / "zero-shot" / "pictures.npy")
    return [of_texts, of_texts.T, cosines(pictures, unit(classes).mean(axis=1))]


def refuse_near_ties(scores: np.ndarray) -> None:
    """No rounding may swap two scores of a row."""
    apart = np.diff(np.sort(scores, axis=1), axis=1)
    if (apart[apart > 0] < NEAR).any():
        raise SystemExit("two scores of the example nearly tie; another SEED, please")


def make_zero_shot(folder: Path, draw: np.random.Generator) -> None:
    """Seven classes of three templates. Classes 1 and 4 are equal, so 1 wins; 5 has no pictures. No vector has
    length 1."""
    classes = around(draw, draw.standard_normal((7, 8)), np.repeat(np.arange(7), 3), 0.5).reshape(7, 3, 8)
    classes[4] = 2 * classes[1]
    labels = draw.choice([0, 1, 2, 3, 4, 6], 30)
    pictures = around(draw, unit(classes).mean(axis=1), labels, 0.8)
    save(folder, {"pictures": pictures, "classes": classes}, {"labels": labels})


def make_retrieval(folder: Path, draw: np.random.Generator) -> None:
    """Sixteen pictures with up to four texts each. Pictures 2 and 9 are equal, and so are some texts of different
    pictures; 5 and 12 have no texts."""
    pictures = draw.standard_normal((16, 8))
    pictures[9] = 2 * pictures[2]
    some = np.repeat([2, 9, 0, 7], [3, 1, 4, 3])
    pairs = draw.permutation([*some, *draw.choice([1, 3, 4, 6, 8, 10, 11, 13, 14, 15], 21)])
    texts = around(draw, pictures, pairs, 1.8)
    for one, other in ((3, 17), (8, 24)):
        texts[other] = texts[one] / 2
    save(folder, {"pictures": pictures, "texts": texts}, {"pairs": pairs})


def make_linear_probe(folder: Path, draw: np.random.Generator) -> None:
    """Six classes of seven features at different scales, the last always the same. Class 2 has no pictures in
    train and 4 none in test."""
    centres = draw.standard_normal((6, 7))
    scales = np.array([1, 1, 4, 0.25, 2, 1, 0])
    labels = {"train": draw.choice([0, 1, 3, 4, 5], 60, p=[0.35, 0.25, 0.2, 0.1, 0.1])}
    labels["test"] = draw.choice([0, 1, 2, 3, 5], 25)
    features = {name: around(draw, centres, rows, 0.9) * scales + 0.3 for name, rows in labels.items()}
    save(folder, features, {f"{name}-labels": rows for name, rows in labels.items()})


def around(draw: np.random.Generator, centres: np.ndarray, chosen: np.ndarray, apart: float) -> np.ndarray:
    """A vector near its centre for each of `chosen`, at a length of its own."""
    found = centres[chosen] + apart * draw.standard_normal((len(chosen), centres.shape[1]))
    return found * draw.uniform(0.5, 2, (len(chosen), 1))


def save(folder: Path, arrays: dict[str, np.ndarray], lists: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32))
    for name, numbers in lists.items():
        (folder / f"{name}.json").write_text(json.dumps(numbers.tolist()) + "\n")


# The command line


def read_vectors(path: Path, dimensions: int = 2) -> np.ndarray:
    vectors = np.load(path)
    if vectors.ndim != dimensions or vectors.size == 0:
        raise SystemExit(f"{path}: an array of {dimensions} dimensions is wanted, this is {list(vectors.shape)}")
    if not np.isfinite(vectors).all():
        raise SystemExit(f"{path}: some numbers are not finite; a picture that could not be read has such a row")
    return vectors.astype(np.float64)


def read_numbers(path: Path, count: int) -> np.ndarray:
    numbers = json.loads(path.read_text(encoding="utf-8"))
    if len(numbers) != count or not all(type(number) is int for number in numbers):
        raise SystemExit(f"{path}: a list of {count} whole numbers is wanted")
    return np.array(numbers)


def evaluate(task: str, options: Json) -> Json:
    """The numbers of a task whose inputs lie in files."""
    if task == "zero-shot":
        pictures = read_vectors(options["pictures"])
        classes = read_vectors(options["classes"], dimensions=3)
        return {"task": task} | zero_shot(pictures, classes, read_numbers(options["labels"], len(pictures)))
    if task == "retrieval":
        pictures, texts = read_vectors(options["pictures"]), read_vectors(options["texts"])
        return {"task": task} | retrieval(pictures, texts, read_numbers(options["pairs"], len(texts)))
    train, test = read_vectors(options["train"]), read_vectors(options["test"])
    train_labels = read_numbers(options["train_labels"], len(train))
    test_labels = read_numbers(options["test_labels"], len(test))
    rest = {name: options[name] for name in ("decay", "standardise", "check") if name in options}
    return {"task": task} | linear_probe(train, train_labels, test, test_labels, **rest)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", action="store_true", help="write fixtures/parity/evaluate anew")
    tasks = parser.add_subparsers(dest="task", metavar="TASK")
    files = {
        "zero-shot": ["pictures", "classes", "labels"],
        "retrieval": ["pictures", "texts", "pairs"],
        "linear-probe": ["train", "train-labels", "test", "test-labels"],
    }
    for task, names in files.items():
        of_task = tasks.add_parser(task)
        for name in names:
            of_task.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    probe = tasks.choices["linear-probe"]
    probe.add_argument("--lambda", dest="decay", type=float, required=True, metavar="L")
    probe.add_argument("--standardise", action="store_true", help="by the mean and deviation of train")
    probe.add_argument("--check", action="store_true", help="beside scikit-learn's LogisticRegression")
    options = parser.parse_args()
    if options.make == bool(options.task):
        parser.error("give a task, or --make")
    return options


def main() -> None:
    options = read_options()
    found = make() if options.make else evaluate(options.task, vars(options))
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
