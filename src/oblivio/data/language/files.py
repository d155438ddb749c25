"""Texts of one's own: JSON and text files, folders, lists, data sets of the hub, under the usual column names."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from oblivio.core.errors import BadInput
from oblivio.data.extras import need
from oblivio.data.language.texts import SHOWN, Text, Texts

Row: TypeAlias = Mapping[str, Any]

PAIRS = (
    ("prompt", "answer"), ("question", "answer"), ("query", "answer"), ("prompt", "response"), ("prompt", "completion"),
    ("question", "response"), ("instruction", "output"), ("prompt", "gt"),
)  # fmt: skip
PLAIN, CHAT = "text", "messages"
ALIASES = {
    "id": "id", "group": "group", "rephrased": "rephrased", "paraphrased_question": "rephrased",
    "paraphrase": "paraphrase", "paraphrased_answer": "paraphrase", "wrong": "wrong", "perturbed_answer": "wrong",
}  # fmt: skip
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".txt")
WHOLE = "all"  # the part of a set that has no parts


def from_rows(rows: Iterable[Any], part: str, keys: Mapping[str, str] | None = None) -> tuple[Text, ...]:
    """Texts of rows.

    A row is a Text, a pair (prompt, answer), a running text, or a mapping with one of: ``question`` and ``answer``;
    ``prompt`` and ``response``, ``completion`` or ``answer``; ``query`` and ``answer``; ``instruction`` and ``output``;
    ``text``; ``messages``, a list of role and content. Optional: ``id``, ``group``, ``rephrased`` (or
    ``paraphrased_question``), ``paraphrase`` (``paraphrased_answer``), ``wrong`` (``perturbed_answer``: a list). Other
    words and numbers become ``facts``.

    Args:
        rows: in their order.
        part: its name; a row without ``id`` is called by it and its place.
        keys: for columns with other names: what is wanted to what it is called, such as ``{"prompt": "q"}``.

    Raises:
        BadInput: no rows, or rows that lack what is needed; the message names the first places and what they have.
    """
    if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
        raise BadInput(f"{part}: {type(rows).__name__} is no list of texts; give texts, pairs or mappings in a list")
    found = list(rows)
    if not found:
        raise BadInput(f"{part}: no texts")
    renamed = {called: wanted for wanted, called in (keys or {}).items()}
    named = [row if isinstance(row, Text) else _mapping(row, renamed) for row in found]
    _check_keys(named, part, keys or {})
    return tuple(row if isinstance(row, Text) else _text(row, f"{part} {place}") for place, row in enumerate(named))


def as_texts(given: Any, name: str = "texts", keys: Mapping[str, str] | None = None) -> Texts:
    """A named set of what a user holds: ``Texts``, rows as in ``from_rows``, a Dataset, a mapping of parts to such."""
    if isinstance(given, Texts):
        return given
    if isinstance(given, Mapping):
        return Texts(name, {str(part): from_rows(rows, str(part), keys) for part, rows in given.items()})
    return Texts(name, {WHOLE: from_rows(given, name, keys)})


def file(path: str | Path, *, keys: Mapping[str, str] | None = None) -> Texts:
    """Read a ``.jsonl``, ``.jsonl.gz``, ``.json`` or ``.txt`` file, or all of them in a folder.

    Returns:
        the part ``all``, or for a folder one part a file, called as the file; a ``.json`` file that holds a mapping of
        names to lists has these parts. In a text file an empty line ends a text.

    Raises:
        BadInput: no such file, no file of such a kind, or content that cannot be read as texts.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.name.endswith(ENDINGS))
        if not files:
            raise BadInput(f"{path} holds no file of texts; these end in {', '.join(ENDINGS)}")
        return as_texts({_stem(each): _rows_of_part(each) for each in files}, path.name, keys)
    content = records(path)
    return as_texts(content, _stem(path), keys)


def hub(name: str, *, config: str | None = None, keys: Mapping[str, str] | None = None) -> Texts:
    """Read a data set of the hub, or a folder that ``save_to_disk`` wrote; its splits are the parts.

    Raises:
        BadInput: the extra is absent, the set cannot be loaded, or its columns hold no texts.
    """
    library = need("datasets", "hub")
    saved = any((Path(name) / each).is_file() for each in ("dataset_dict.json", "state.json"))
    try:
        found = library.load_from_disk(name) if saved else library.load_dataset(name, config)
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such set, a set that needs code
        raise BadInput(
            f"{name!r} cannot be loaded by datasets: {error}; without a network, give a folder that save_to_disk "
            f"wrote, or a file ({', '.join(ENDINGS)})"
        ) from None
    return as_texts(found, name, keys)


# --- reading


def records(path: Path) -> Any:
    """What a file holds: a list of rows, or a mapping of parts to rows."""
    try:
        content = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8")
    except FileNotFoundError:
        raise BadInput(f"no file {path}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}; texts are UTF-8") from None
    if path.suffix == ".txt":
        return [each.strip() for each in content.split("\n\n") if each.strip()]
    if path.suffix == ".json":
        try:
            return json.loads(content)
        except json.JSONDecodeError:
            pass  # some call a file of JSON lines .json: TOFU does
    return [_parsed(path, number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}, line {number}, is not JSON: {error}; every line is one JSON object") from None


def _rows_of_part(path: Path) -> list[Any]:
    content = records(path)
    if not isinstance(content, list):
        raise BadInput(f"{path} holds no list of texts; in a folder every file is one part")
    return content


def _stem(path: Path) -> str:
    ending = next((each for each in ENDINGS if path.name.endswith(each)), "")
    return path.name.removesuffix(ending)


# --- rows


def _mapping(row: Any, renamed: Mapping[str, str]) -> Row:
    if isinstance(row, Mapping):
        return {renamed.get(key, key): value for key, value in row.items()}
    if isinstance(row, str):
        return {PLAIN: row}
    if isinstance(row, Sequence) and len(row) == 2:
        return {"prompt": row[0], "answer": row[1]}
    return {}


def _pair(row: Row) -> tuple[str, str] | None:
    return next(((asked, said) for asked, said in PAIRS if asked in row and said in row), None)


def _check_keys(rows: Sequence[Row | Text], part: str, keys: Mapping[str, str]) -> None:
    lacking = {
        place: row
        for place, row in enumerate(rows)
        if not isinstance(row, Text) and not (_pair(row) or PLAIN in row or CHAT in row)
    }
    if lacking:
        places, first = list(lacking)[:SHOWN], next(iter(lacking.values()))
        asked = f" (keys={dict(keys)})" if keys else ""
        raise BadInput(
            f"{part}: {len(lacking)} rows are no texts{asked}, at places {', '.join(map(str, places))}; the first "
            f"has {', '.join(map(str, first)) or 'no columns'}, and question and answer, prompt and response or "
            "completion, text, or messages are needed; keys={'prompt': ..., 'answer': ...} says what they are called"
        )


def _text(row: Row, place: str) -> Text:
    known = {ALIASES[key]: value for key, value in row.items() if key in ALIASES and value is not None}
    name = known.pop("id", place)
    if not isinstance(name, (str, int)):
        raise BadInput(f"{place}: the id is {name!r}; give a number or a text")
    wrong = known.pop("wrong", ())
    known["wrong"] = (wrong,) if isinstance(wrong, str) else tuple(wrong)
    content, used = _content(row, place)
    facts = {
        key: str(value)
        for key, value in row.items()
        if key not in ALIASES and key not in used and isinstance(value, (str, int, float))
    }
    return Text(**content, id=name, facts=facts, **known)


def _content(row: Row, place: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is said, and the columns it came from."""
    if CHAT in row:
        return {"prompt": "", "answer": "", "messages": _messages(row[CHAT], place)}, (CHAT,)
    if pair := _pair(row):
        asked, said = (row[key] for key in pair)
        if not isinstance(asked, str) and not isinstance(said, str):  # a chat in two parts
            return {"prompt": "", "answer": "", "messages": _messages([*asked, *said], place)}, pair
        return {"prompt": _said(asked, place, pair[0]), "answer": _said(said, place, pair[1])}, pair
    return {"prompt": "", "answer": _said(row[PLAIN], place, PLAIN)}, (PLAIN,)


def _said(value: Any, place: str, key: str) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{place}: {key!r} holds {value!r}, no text")
    return value


def _messages(given: Any, place: str) -> tuple[Row, ...]:
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, Mapping) for each in given):
        raise BadInput(f"{place}: messages are a list of role and content, not {type(given).__name__}")
    return tuple(given)
