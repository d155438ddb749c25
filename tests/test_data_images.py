"""Images that are opened when they are read: folders, tables of paths, and sets of the datasets library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oblivio import data
from oblivio.core.errors import BadInput
from oblivio.data.pictures import Files, Labelled, Pictures


def picture(path: Path, grey: int, size: tuple[int, int] = (5, 7)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)
    return path


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for i in range(4):
        picture(tmp_path / "animals" / "cat" / f"{i}.png", grey=10 * i)
        picture(tmp_path / "animals" / "dog" / "big" / f"{i}.png", grey=100 + 10 * i)
    (tmp_path / "animals" / "cat" / "readme.txt").write_text("no image")
    return tmp_path / "animals"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places of the images that were opened."""
    places: list[int] = []
    real = Files.__call__
    monkeypatch.setattr(Files, "__call__", lambda self, place: places.append(place) or real(self, place))  # type: ignore[func-returns-value]
    return places


def test_a_folder_is_a_classification(animals: Path) -> None:
    found = data.folder(animals, size=4, test=0.25, seed=0)
    assert (len(found.train), len(found.test), found.inputs, found.classes) == (6, 2, (3, 4, 4), ("cat", "dog"))
    assert set(found.test.ids.tolist()) < {f"cat/{i}.png" for i in range(4)} | {f"dog/big/{i}.png" for i in range(4)}
    batch = found.train.batch(torch.arange(6))
    assert batch["x"].shape == (6, 3, 4, 4)
    greys = [int(name[-5]) * 10 + 100 * name.startswith("dog") for name in found.train.ids.tolist()]
    torch.testing.assert_close(batch["x"][:, 0, 0, 0], torch.tensor(greys) / 255)
    assert batch["y"].tolist() == [int(grey >= 100) for grey in greys]
    data.check(found.train, "train", task="classification", outputs=2, inputs=found.inputs)


def test_labels_are_read_without_opening_images(animals: Path, opened: list[int]) -> None:
    found = data.folder(animals, size=4, test=0.25)
    opened.clear()
    forget, retain = data.split(found.train, "class=dog", fields=found.fields)
    assert (len(forget), len(retain), opened) == (3, 3, [])
    assert isinstance(forget, Labelled)
    assert forget.batch(torch.arange(3))["y"].tolist() == [1, 1, 1]
    assert forget.take([2, 0]).ids.tolist() == forget.ids[[2, 0]].tolist()
    assert forget.batch(torch.arange(1))["x"].shape == (1, 3, 4, 4)
    assert len(opened) == 1


def test_a_folder_can_have_one_of_its_own_to_test(animals: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        picture(tmp_path / "other" / name / "1.jpg", grey=200)
    found = data.load(animals, test=str(tmp_path / "other"), size=(6, 4), channels=1)
    assert (len(found.train), len(found.test), found.inputs) == (8, 2, (1, 6, 4))
    picture(tmp_path / "other" / "cow" / "1.png", grey=3)
    with pytest.raises(BadInput, match="differ in the classes cow"):
        data.folder(animals, test=tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "cannot be resized to 0 x 0"),
        ({"channels": 2}, "1 channel or 3, not 2"),
        ({"test": 1.0}, "no row"),
    ],
)
def test_options_of_a_folder_are_checked(animals: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        data.folder(animals, **options)


def test_folders_without_images_are_refused(tmp_path: Path, animals: Path) -> None:
    with pytest.raises(BadInput, match="is no folder"):
        data.folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="has no subfolders"):
        data.folder(tmp_path / "empty")
    (tmp_path / "empty" / "cat").mkdir()
    with pytest.raises(BadInput, match="cat holds no images"):
        data.folder(tmp_path / "empty")
    (animals / "cat" / "0.png").write_text("no image")
    with pytest.raises(BadInput, match=r"0\.png cannot be read as an image"):
        data.folder(animals, test=0.25).train.batch(torch.arange(6))["x"]


def test_without_pillow_the_message_names_the_extra(animals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(BadInput, match=r"PIL is not installed; run: pip install 'oblivio\[images\]'"):
        data.folder(animals)


def test_images_have_statistics_a_channel(animals: Path) -> None:
    found = data.folder(animals, size=4, test=0.25)
    x = found.train.batch(torch.arange(6))["x"]
    fitted = data.fit_preprocess(found.preprocess, found.train)
    torch.testing.assert_close(fitted(x), (x - x.mean()) / x.std(correction=0), atol=1e-5, rtol=1e-5)


def test_a_table_can_name_images(animals: Path, opened: list[int]) -> None:
    lines = [f"cat/{i}.png,{i},site{i % 2}" for i in range(4)]
    (animals / "rows.csv").write_text("\n".join(["file,height,site", *lines]))
    roles = {"file": "image", "height": "target", "site": "group"}
    found = data.table(animals / "rows.csv", roles, task="regression", test=0.25, size=4)
    assert (found.inputs, found.outputs, found.preprocess) == ((3, 4, 4), 1, "channels")
    opened.clear()
    north = data.select(found.train, "group=site0", fields=found.fields)
    assert opened == []
    assert (found.train.ids[north] % 2 == 0).all()
    batch = found.train.batch(torch.arange(3))
    torch.testing.assert_close(batch["x"][:, 1, 2, 2] * 255, batch["y"] * 10)
    (animals / "cat" / "3.png").unlink()
    with pytest.raises(BadInput, match=r"column 'file' names 1 files that do not exist, first .*3\.png"):
        data.table(animals / "rows.csv", roles, task="regression", test=0.25)


# --- the hub


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that the datasets library saved: images, class labels, text and numbers under names of its own."""
    import datasets

    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("hub")
    rows = {
        "bild": [Image.fromarray(np.full((4, 4, 3), 20 * i, np.uint8)) for i in range(6)],
        "tier": [1, 0, 1, 0, 1, 0],
        "wer": list("abcdef"),
        "alter": [1.0, 2.0, None, 4.0, 5.0, 6.0],
        "liste": [[i] for i in range(6)],
    }
    kinds = {
        "bild": datasets.Image(), "tier": datasets.ClassLabel(names=["zebra", "affe"]), "wer": datasets.Value("string"),
        "alter": datasets.Value("float32"), "liste": datasets.List(datasets.Value("int32")),
    }  # fmt: skip
    whole = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    whole.save_to_disk(folder / "single")
    datasets.DatasetDict(fit=whole.select(range(4)), hold=whole.select([4, 5])).save_to_disk(folder / "halves")
    (folder / "files").mkdir()
    whole.select_columns(["wer", "tier", "alter"]).to_parquet(folder / "files" / "train.parquet")
    return folder


def test_images_of_the_hub(saved: Path) -> None:
    roles = {"bild": "image", "tier": "target", "wer": "id"}
    found = data.hub(str(saved / "halves"), roles, task="classification", train="fit", test="hold", size=4)
    assert found.classes == ("zebra", "affe")  # the hub's numbers, not the alphabet's
    assert (found.inputs, found.train.ids.tolist(), found.test.ids.tolist()) == ((3, 4, 4), list("abcd"), list("ef"))
    batch = found.test.batch(torch.arange(2))
    torch.testing.assert_close(batch["x"][:, 0, 0, 0] * 255, torch.tensor([80.0, 100.0]))
    assert batch["y"].tolist() == [1, 0]
    assert data.select(found.train, "class=affe", fields=found.fields).tolist() == [0, 2]


def test_tables_of_the_hub(saved: Path) -> None:
    roles = {"tier": "target", "alter": "input", "wer": "group"}
    for name in ("single", "files"):
        found = data.load(f"hub:{saved / name}", roles=roles, task="binary", test=1 / 3, seed=2)
        assert (len(found.train), len(found.test), found.inputs) == (4, 2, (1,))
        assert data.select(found.train, "where=alter > 0 and wer != 'z'", fields=found.fields).size


@pytest.mark.parametrize(
    ("roles", "options", "message"),
    [
        ({"tier": "target"}, {"test": "tset"}, "has no split 'tset'; known are train; a share such as test=0.2 draws"),
        ({"tier": "target", "liste": "input"}, {}, "column 'liste' holds List"),
        ({"tier": "target", "alter": "image"}, {}, "column 'alter' holds Value, which does not suit the role 'image'"),
        ({"tier": "target", "bild": "input"}, {}, "column 'bild' holds Image, which does not suit the role 'input'"),
        ({"teir": "target"}, {}, "no column 'teir'; did you mean 'tier'?"),
    ],
)
def test_what_does_not_fit_the_hub_is_refused(
    saved: Path, roles: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as raised:
        data.hub(str(saved / "single"), roles, **{"task": "binary", "test": 0.5, **options})
    assert message in str(raised.value)


def test_a_set_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BadInput, match=r"cannot be loaded by datasets: .*save_to_disk wrote"):
        data.hub(str(tmp_path / "nothing"), {"y": "target"}, task="binary")


def test_pictures_refuse_what_is_no_size() -> None:
    with pytest.raises(BadInput, match="1 channel or 3"):
        Pictures(lambda _: None, 3, (4, 4), channels=4)
