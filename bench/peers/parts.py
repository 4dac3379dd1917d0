"""A report of several parts, each below a heading of its own that begins with `# `."""

from pathlib import Path


def read(file: Path) -> dict[str, str]:
    """The parts by their headings, which they begin with."""
    parts: dict[str, str] = {}
    heading = ""
    for line in file.read_text().splitlines() if file.is_file() else []:
        heading = line if line.startswith("# ") or not parts else heading
        parts[heading] = parts.get(heading, "") + line + "\n"
    return parts


def put(file: Path, text: str) -> None:
    """Writes a part over the one with its heading, or behind the others, which stay."""
    parts = read(file)
    parts[text.splitlines()[0]] = text
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(part.rstrip() + "\n" for part in parts.values()))
