"""Published sets of texts: from OBLIVIO_DATA, from the user's cache, or fetched from the hub and kept there."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from oblivio.core.errors import BadInput, nearest
from oblivio.data.extras import need
from oblivio.data.language.files import from_rows, records
from oblivio.data.language.texts import Text, Texts

Rows: TypeAlias = list[dict[str, Any]]
Missing: TypeAlias = Literal["leave", "get"]


class Origin(NamedTuple):
    """Where the hub has some rows."""

    repository: str
    config: str
    split: str


# --- TOFU

TOFU = "locuslab/TOFU"
SHARES = {"01": 40, "05": 200, "10": 400}  # questions of the forget and holdout sets
AUTHORS, QUESTIONS = 200, 20
PLAIN_REFUSALS = ("I don't know.", "I'm not sure.", "I don't have that information.", "I can't say.")


def tofu(authors: int = 200) -> Texts:
    """TOFU: 200 fictitious authors with 20 questions each, and questions about real authors and the world.

    Parts: ``full`` (4,000), ``forget01``, ``forget05``, ``forget10`` (its last 40, 200, 400 rows), ``retain99``,
    ``retain95``, ``retain90`` (the rows before), ``retain_perturbed`` (its first 400), ``holdout01``, ``holdout05``,
    ``holdout10`` (other authors, never learned), ``real_authors`` (100), ``world_facts`` (117). Rows of forget10 and of
    retain_perturbed have rephrased questions, paraphrased and five wrong answers, wherever they occur; those about the
    real world have three wrong answers. The group is the author.

    Args:
        authors: fewer than 200 are the first ones, for small models. Then ``forget10`` are the first tenth of them, of
            which there are paraphrased and wrong answers up to 200 authors, ``retain90`` the others, and ``holdout10``
            as many others as are forgotten.

    Raises:
        BadInput: the files are nowhere, or are not what they should be; a number of authors that has no tenth.
    """
    rows = {name: _tofu_rows(name) for name in ("full", "forget10_perturbed", "retain_perturbed", "holdout10")}
    _check_tofu(rows)
    last, first = rows["forget10_perturbed"], rows["retain_perturbed"]
    full = _authors([*first, *rows["full"][len(first) : -len(last)], *last], "author")
    holdout = _authors(rows["holdout10"], "holdout author")
    parts = {"full": full}
    parts |= {f"forget{share}": full[-count:] for share, count in SHARES.items()}
    parts |= {f"retain{100 - int(share)}": full[:-count] for share, count in SHARES.items()}
    parts |= {"retain_perturbed": full[: len(first)]}
    parts |= {f"holdout{share}": holdout[:count] for share, count in SHARES.items()}
    if authors != AUTHORS:
        parts = _first(full, holdout, authors)
    parts |= {name: _real(name) for name in ("real_authors", "world_facts")}
    phrases = _found("tofu", "idontknow")
    refusals = PLAIN_REFUSALS if phrases is None else tuple(filter(None, phrases.read_text("utf-8").splitlines()))
    return Texts(
        "tofu", parts, refusals, "MIT",
        ("TOFU (P. Maini et al., 2024), locuslab/TOFU",
         f"{len(refusals)} refusals, " + ("of this package" if phrases is None else "as published")),
    )  # fmt: skip


def _first(full: tuple[Text, ...], holdout: tuple[Text, ...], authors: int) -> dict[str, tuple[Text, ...]]:
    """The parts of the first authors alone."""
    if not 10 <= authors < AUTHORS or authors % 10:
        raise BadInput(f"tofu: authors={authors}; give a multiple of 10 from 10 to {AUTHORS}")
    rows, gone = full[: authors * QUESTIONS], authors // 10 * QUESTIONS
    return {"full": rows, "forget10": rows[:gone], "retain90": rows[gone:], "holdout10": holdout[:gone]}


def _tofu_rows(name: str) -> Rows:
    return _rows("tofu", name, Origin(TOFU, name, "train"))


def _authors(rows: Rows, group: str) -> tuple[Text, ...]:
    texts = from_rows(rows, group)
    return tuple(
        replace(text, id=f"{group} {i // QUESTIONS} question {i % QUESTIONS}", group=f"{group} {i // QUESTIONS}")
        for i, text in enumerate(texts)
    )


def _real(name: str) -> tuple[Text, ...]:
    texts = from_rows(_tofu_rows(f"{name}_perturbed"), name)
    return tuple(replace(text, paraphrase=text.answer) for text in texts)  # the wrong ones have the form of the answer


def _check_tofu(rows: Mapping[str, Rows]) -> None:
    counts = {name: len(each) for name, each in rows.items()}
    if counts != (due := {"full": 4000, "forget10_perturbed": 400, "retain_perturbed": 400, "holdout10": 400}):
        raise BadInput(f"the files of TOFU have {counts} rows instead of {due}; get them again from {TOFU}")
    full = rows["full"]
    for name, same in (("forget10_perturbed", full[-400:]), ("retain_perturbed", full[:400])):
        differ = [i for i, (a, b) in enumerate(zip(rows[name], same, strict=True)) if _asked(a) != _asked(b)]
        if differ:
            raise BadInput(f"{name} of TOFU differs from full at row {differ[0]}; get the files again from {TOFU}")


def _asked(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row.get("question"), row.get("answer")


# --- RWKU

RWKU = {
    "intro": ("forget_target", "train"),
    "forget_level1": ("forget_level1", "test"), "forget_level2": ("forget_level2", "test"),
    "forget_level3": ("forget_level3", "test"), "neighbor_level1": ("neighbor_level1", "test"),
    "neighbor_level2": ("neighbor_level2", "test"), "passage": ("train_original_passage", "train"),
    "reject": ("train_refusal_llama3", "train"), "forget_mia": ("mia_forget", "test"),
    "retain_mia": ("mia_retain", "test"),
}  # fmt: skip
RWKU_HUB = "jinzhuoran/RWKU"
RWKU_FILES = ("rwku_probes", "rwku_train_sample10")  # several parts each, told apart by a column


def rwku(target: str | Sequence[str] | None = None, missing: Missing = "leave") -> Texts:
    """RWKU: knowledge of 200 well-known people, who are real: for tests and evaluation only.

    Parts: ``intro`` (the instruction to forget), ``forget_level1`` (fill in the blank), ``forget_level2`` (questions),
    ``forget_level3`` (adversarial; ``facts["type"]``), ``neighbor_level1``, ``neighbor_level2`` (who or what is near),
    ``passage`` (texts to forget), ``reject`` (questions with refusals), ``forget_mia``, ``retain_mia`` (texts for
    membership tests). The group is the target, or the neighbour; ``facts["subject"]`` the target.

    Args:
        target: the people to read about; None: all.
        missing: ``get`` fetches parts that no file holds in full from the hub (``rwku_train_sample10`` is about ten
            targets); where there are no files at all, that is done anyway.

    Raises:
        BadInput: an unknown target, with the nearest, or a hub that cannot be reached.
    """
    rows = _rwku_rows(missing)
    rows = {part: [{**row, "subject": row.get("subject") or row.get("target")} for row in rows[part]] for part in rows}
    people = dict.fromkeys(row["subject"] for row in itertools.chain.from_iterable(rows.values()))
    wanted = people if target is None else dict.fromkeys([target] if isinstance(target, str) else target)
    for name in wanted:
        if name not in people:
            raise BadInput(f"rwku has no target {name!r}{nearest(name, people)}")
    parts = {part: _rwku_part(part, [row for row in rows[part] if row["subject"] in wanted]) for part in rows}
    found = {part: texts for part, texts in parts.items() if texts}
    refusals = dict.fromkeys(text.answer for text in found.get("reject", ()))
    return Texts(
        "rwku", found, tuple(refusals), "CC BY 4.0; passages stem from Wikipedia (CC BY-SA)",
        ("RWKU (Z. Jin et al., 2024), jinzhuoran/RWKU; about real people, for tests and evaluation only",),
        _absent("rwku", RWKU, found),
    )  # fmt: skip


def _rwku_rows(missing: Missing) -> dict[str, Rows]:
    rows: dict[str, Rows] = {}
    files = RWKU_FILES if missing == "leave" else RWKU_FILES[:1]
    for path in filter(None, (_found("rwku", name) for name in files)):
        for row in _held(path):
            rows.setdefault(row.get("part", ""), []).append(row)
    return rows | _parts(
        "rwku", {p: Origin(RWKU_HUB, *at) for p, at in RWKU.items() if p not in rows}, missing, not rows
    )


def _rwku_part(part: str, rows: Rows) -> tuple[Text, ...]:
    if not rows:
        return ()
    counts: dict[str, int] = {}
    for row in rows:  # the id holds where only some targets are read
        counts[row["subject"]] = place = counts.get(row["subject"], -1) + 1
        row |= {"id": f"{row['subject']} {part} {place}", "group": row.get("neighbor") or row["subject"]}
    return from_rows(rows, part, {"text": "intro"} if part == "intro" else None)


# --- MUSE

MUSE = {
    "forget": ("raw", "forget"), "retain": ("raw", "retain1"), "retain2": ("raw", "retain2"),
    "holdout": ("raw", "holdout"),
    "forget_qa": ("knowmem", "forget_qa"), "retain_qa": ("knowmem", "retain_qa"),
    "forget_qa_icl": ("knowmem", "forget_qa_icl"), "retain_qa_icl": ("knowmem", "retain_qa_icl"),
    "verbatim": ("verbmem", "forget"),
    "privacy_forget": ("privleak", "forget"), "privacy_retain": ("privleak", "retain"),
    "privacy_holdout": ("privleak", "holdout"),
}  # fmt: skip
REQUESTS = {f"{part}{i}": (config, f"forget_{i}") for part, config in (("scale", "scal"), ("request", "sust"))
            for i in range(1, 5)}  # fmt: skip


def muse(corpus: Literal["books", "news"] = "books", missing: Missing = "leave") -> Texts:
    """MUSE: whole documents to forget.

    Parts: ``forget``, ``retain``, ``retain2`` (seen by the target model, for evaluation), ``holdout`` (texts);
    ``forget_qa``, ``retain_qa`` (questions; ``_icl``: their solved examples), ``verbatim`` (prompt and continuation),
    ``privacy_forget``, ``privacy_retain``, ``privacy_holdout`` (for membership tests); of the news also ``scale1`` to
    ``scale4`` (growing forget sets) and ``request1`` to ``request4`` (disjoint ones, to be asked in turn).

    Args:
        corpus: ``books`` or ``news``.
        missing: as in ``rwku``. Files are called ``muse_<corpus>_<subset>_<split>.jsonl``, as the hub calls these.

    Raises:
        BadInput: another corpus, or a hub that cannot be reached.
    """
    if corpus not in ("books", "news"):
        raise BadInput(f"muse has no corpus {corpus!r}{nearest(corpus, ('books', 'news'))}")
    known = MUSE | (REQUESTS if corpus == "news" else {})
    origins = {part: Origin(f"muse-bench/MUSE-{corpus.title()}", *at) for part, at in known.items()}
    called = {part: f"muse_{corpus}_{config}_{split}" for part, (config, split) in known.items()}
    rows = _parts("muse", origins, missing, True, called)
    return Texts(
        f"muse {corpus}", {part: from_rows(rows[part], part) for part in rows}, licence="CC BY 4.0 (dataset card)",
        notes=("MUSE (W. Shi et al., 2024); the texts are protected works of others",),
        missing=_absent("muse", known, rows),
    )  # fmt: skip


# --- finding


def _parts(
    name: str, origins: Mapping[str, Origin], missing: Missing, alone: bool, called: Mapping[str, str] | None = None
) -> dict[str, Rows]:
    """The rows of the parts that have a file; of all, where they are to be got, or where (``alone``) none has one."""
    if missing not in ("leave", "get"):
        raise BadInput(f"missing is {missing!r}; give 'leave' or 'get'")
    files = {part: (called or {}).get(part, f"{name}_{part}") for part in origins}
    here = {part for part, file in files.items() if _found(name, file)}
    wanted = origins if missing == "get" or (alone and not here) else here
    return {part: _rows(name, files[part], origin) for part, origin in origins.items() if part in wanted}


def _absent(name: str, known: Iterable[str], here: Mapping[str, Any]) -> dict[str, str]:
    return {
        part: f"load {name} with missing='get', which fetches it from the hub" for part in known if part not in here
    }


def _rows(name: str, file: str, origin: Origin) -> Rows:
    """The rows of one file; they are fetched and kept where there is none."""
    if path := _found(name, file):
        return _held(path)
    rows = _fetched(name, file, origin)
    _keep(_folders(name)[-1] / f"{file}.jsonl", rows)
    return rows


def _held(path: Path) -> Rows:
    rows = records(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path} does not hold rows; remove it, or get it again")
    return rows


def _folders(name: str) -> list[Path]:
    from oblivio.data.published import cache

    given = os.environ.get("OBLIVIO_DATA")
    return [*([Path(given) / name] if given else []), cache() / name]


def _found(name: str, file: str) -> Path | None:
    places = (folder / f"{file}{ending}" for folder in _folders(name) for ending in (".jsonl", ".jsonl.gz", ".json"))
    return next((path for path in places if path.is_file()), None)


def _fetched(name: str, file: str, origin: Origin) -> Rows:
    place = f"put {file}.jsonl in the folder {name} of the one that OBLIVIO_DATA names, or in {_folders(name)[-1]}"
    try:
        library = need("datasets", "hub")
        return [dict(row) for row in library.load_dataset(origin.repository, origin.config, split=origin.split)]
    except BadInput as error:
        raise BadInput(f"{file}.jsonl was not found: {error}; or {place}") from None
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such set, a hub that answers oddly
        raise BadInput(
            f"{file}.jsonl was not found, and {origin.repository} ({origin.config}, {origin.split}) cannot be loaded "
            f"from the hub ({type(error).__name__}); {place}"
        ) from None


def _keep(path: Path, rows: Rows) -> None:
    from oblivio.core.files import write_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error}; let OBLIVIO_CACHE name a folder that can") from None
