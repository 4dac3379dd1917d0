"""What a voice learns from beside scenes: the names of drawings, and easy-vqa's questions.

    python3 scripts/voice_data.py [DATA]

Reads what scripts/fetch_data.py has fetched (~/.cache/dari/data when DATA is absent) and writes

- emoji/names.jsonl, icons/names.jsonl: a picture and its name a line, in the languages that the source has;
- easy-vqa/{train,test}.json: the package's questions as conversations, where easy-vqa/ holds the package's data.
"""

import json
import sys
from pathlib import Path


def names(source: Path, target: Path) -> None:
    """The plain name of each drawing, in place of its many captions."""
    kept = 0
    with open(source, encoding="utf-8") as lines, open(target, "w", encoding="utf-8") as out:
        for line in lines:
            record = json.loads(line)
            label = record.get("label")
            if not label or record.get("tone"):
                continue
            captions = label if isinstance(label, dict) else {"en": label}
            out.write(json.dumps({"picture": record["picture"], "caption": captions}, ensure_ascii=False) + "\n")
            kept += 1
    print(f"{target}: {kept} drawings")


def easy_vqa(folder: Path) -> None:
    """easy-vqa's questions (MIT) as LLaVA's conversations."""
    for split in ("train", "test"):
        source = folder / split
        if not (source / "questions.json").is_file():
            continue
        records = [
            {
                "id": number,
                "image": f"{split}/images/{image}.png",
                "conversations": [
                    {"from": "human", "value": f"<image>\n{question}"},
                    {"from": "gpt", "value": answer},
                ],
            }
            for number, (question, answer, image) in enumerate(json.loads((source / "questions.json").read_text()))
        ]
        (folder / f"{split}.json").write_text(json.dumps(records))
        print(f"{folder / split}.json: {len(records)} questions")


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else Path.home() / ".cache/dari/data"
    for source in ("emoji", "icons"):
        if (data / source / "train.jsonl").is_file():
            names(data / source / "train.jsonl", data / source / "names.jsonl")
    if (data / "easy-vqa").is_dir():
        easy_vqa(data / "easy-vqa")


if __name__ == "__main__":
    main()
