"""Vision-language models: the task, pictures among tokens, generators, SIU, Prompt Decouple, what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from oblivio import methods
from oblivio.audits.language import vision
from oblivio.core.descent import Descent
from oblivio.core.errors import BadInput
from oblivio.core.opt import adam
from oblivio.core.plan import Stage
from oblivio.core.problem import Problem
from oblivio.core.run import Run
from oblivio.data.language.faces import NAMING, faces, picture, rephrasings
from oblivio.data.language.pictures import encode_pictured
from oblivio.data.language.risks import risks
from oblivio.data.language.texts import Text
from oblivio.methods.unlearning.language.siu import dual_masked_kl, masked_kl, spellings
from oblivio.networks.language import save_model, word_tokenizer
from oblivio.networks.language.vision import llava, open_seeing, seeing
from oblivio.sources.answers import Answers
from oblivio.sources.tokens import IGNORED, Tokens
from oblivio.tasks.vision_language import VisionLanguage
from oblivio.terms import fit

EOS, IMAGE, WORDS = 1, 3, 20
NETS: dict[str, Callable[[], nn.Module]] = {
    "llava": lambda: llava(WORDS, IMAGE, width=16, heads=2, ff=16),
    "seeing": lambda: seeing(WORDS, IMAGE, width=16, heads=2, ff=16, hidden=4),
}
every_net = pytest.mark.parametrize("net", NETS)


def shown(n: int = 6, alone: int = 2) -> Tokens:
    """Rows about pictures of four tokens, and after them some that are texts alone, in one source."""
    g = torch.Generator().manual_seed(0)
    words = torch.randint(5, WORDS, (n + alone, 3), generator=g).tolist()
    rows = [[*[IMAGE] * 4 * (i < n), *row, EOS] for i, row in enumerate(words)]
    images = torch.randn(n + alone, 1, 16, 16, generator=g)
    mixed = {"pictured": torch.arange(n + alone) < n} if alone else {}
    return Tokens(rows, [len(row) - 2 for row in rows], image=images, **mixed)


def outputs(model: nn.Module, rows: Tokens) -> Tensor:
    return Problem(model, task="vision_language", rows=rows).predict("rows")


# --- the task


@every_net
def test_a_mixed_batch_gives_what_its_rows_give_alone(net: str) -> None:
    rows, model = shown(), NETS[net]()
    together = outputs(model, rows)
    for i in range(len(rows)):
        mine = outputs(model, rows.take([i]))[0]
        torch.testing.assert_close(together[i, : len(mine)], mine, rtol=1e-4, atol=1e-5)


@every_net
def test_a_picture_is_seen_where_it_is_shown_and_nowhere_else(net: str) -> None:
    rows, model = shown(), NETS[net]()
    before = outputs(model, rows)
    rows.extra["image"] = rows.extra["image"].flip(-1)
    changed = (outputs(model, rows) - before).abs().amax((1, 2))
    assert bool((changed[:6] > 1e-4).all())
    assert bool((changed[6:] == 0).all())


def test_rows_of_texts_alone_need_no_pictures() -> None:
    rows = Tokens([[5, 6, 7, EOS]], [2])
    assert VisionLanguage().inputs(rows.batch(torch.tensor([0]))).keys() == {"input_ids", "use_cache"}
    assert outputs(NETS["llava"](), rows).shape == (1, 4, WORDS)


def test_image_tokens_count_in_no_loss() -> None:
    rows = shown()
    batch = rows.batch(torch.arange(len(rows)))
    assert bool((batch["y"][batch["x"] == IMAGE] == IGNORED).all())
    assert int((batch["y"] != IGNORED).sum()) == 2 * len(rows)


def test_other_answers_keep_their_pictures() -> None:
    rows = shown(alone=0)
    problem = Problem(NETS["seeing"](), task="vision_language", forget=rows)
    refused = problem.source(Answers("forget", [[5, EOS]], "refused"))
    batch = refused.batch(torch.tensor([3, 1]))
    assert torch.equal(problem.task.inputs(batch)["pixel_values"], rows.extra["image"][[3, 1]])
    assert batch["y"][0, -2:].tolist() == [5, EOS]


@every_net
def test_a_frozen_tower_keeps_its_bits_and_the_rest_learns(net: str) -> None:
    tower = {"llava": "model.model.vision_tower.*", "seeing": "model.eyes.*"}[net]
    problem = Problem(NETS[net](), task="vision_language", retain=shown())
    before, start = problem.score("retain"), {n: w.clone() for n, w in problem.weights(tower).items()}
    plan = Descent(fit("retain"), where=f"model.* !{tower}", opt=adam(1e-2), steps=30, batch=8)
    Run(plan, problem).go()
    assert problem.score("retain") > before + 0.3
    assert all(torch.equal(w, start[n]) for n, w in problem.weights(tower).items())


# --- folders


def llava_processor(tokenizer: Any) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    return LlavaProcessor(images, tokenizer, patch_size=8, vision_feature_select_strategy="default")


@pytest.mark.parametrize("beside", ["processor", "tokenizer"])
def test_a_llava_that_learned_comes_back_from_its_folder(tmp_path: Path, beside: str) -> None:
    tokenizer = word_tokenizer(["<image> Q A a b c d e f g h"])
    model = llava(len(tokenizer), tokenizer.convert_tokens_to_ids("<image>"), width=16, heads=2, ff=16)
    rows = shown()
    rows.flat = torch.where(rows.flat == IMAGE, IMAGE, rows.flat % len(tokenizer))
    problem = Problem(model, task="vision_language", retain=rows)
    Run(Descent(fit("retain"), opt=adam(1e-2), steps=2, batch=4), problem).go()
    reader = llava_processor(tokenizer) if beside == "processor" else tokenizer
    save_model(tmp_path / "model", problem.model, reader)
    again, read = open_seeing(tmp_path / "model")
    assert type(read).__name__ == type(reader).__name__
    torch.testing.assert_close(outputs(again, rows), problem.predict("retain"), rtol=0, atol=0)


def test_a_model_without_processor_or_tokenizer_is_opened_too(tmp_path: Path) -> None:
    NETS["llava"]().save_pretrained(tmp_path)  # type: ignore[operator]
    assert open_seeing(tmp_path)[1] is None
    with pytest.raises(BadInput, match=r"does not hold config\.json"):
        open_seeing(tmp_path / "nothing")


def test_a_model_of_texts_alone_is_refused(tmp_path: Path) -> None:
    from oblivio.networks.language import llama

    llama(WORDS, layers=1, width=16, heads=2, ff=16).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="cannot be opened as a model of images and texts"):
        open_seeing(tmp_path)


# --- texts about pictures


def cat(**facts: str) -> Text:
    return Text("what is this ?", "a cat", "cat", "animals", facts={"image": "cat", **facts})


TOKENIZER = word_tokenizer(["<image> Q A what is this ? a cat dog"])
IMAGES = {"cat": np.ones((1, 4, 4), dtype=np.float32)}


def test_a_picture_stands_where_the_template_says() -> None:
    alone = Text("what is a cat ?", "a dog", "text", "animals")
    rows = encode_pictured([cat(), alone], IMAGES, TOKENIZER, count=3, template="Q {image} {prompt} A")
    written = TOKENIZER.convert_ids_to_tokens(rows.sequence(0)[0])
    assert written == ["Q", *["<image>"] * 3, "what", "is", "this", "?", "A", "a", "cat", "<eos>"]
    assert rows.answer(0) == TOKENIZER("a cat")["input_ids"] + [TOKENIZER.eos_token_id]
    assert TOKENIZER.convert_ids_to_tokens(rows.prompt(1)) == ["Q", "what", "is", "a", "cat", "?", "A"]
    assert rows.extra["pictured"].tolist() == [True, False]
    assert rows.extra["image"].sum((1, 2, 3)).tolist() == [16.0, 0.0]
    assert rows.ids.tolist() == ["cat", "text"]
    assert rows.extra["group"][0] == rows.extra["group"][1]


def test_rows_of_one_kind_say_no_more_than_they_must() -> None:
    pictured = encode_pictured([cat()], IMAGES, TOKENIZER, count=1)
    alone = encode_pictured([Text("what is a cat ?", "a dog", "text")], IMAGES, TOKENIZER, count=1)
    assert pictured.columns == ("x", "y", "group", "image")
    assert alone.columns == ("x", "y")


def test_pictured_rows_can_be_written_anew() -> None:
    rows = encode_pictured([cat()], IMAGES, TOKENIZER, count=2)
    again = rows.rewritten(lambda text: text.but(answer="a dog"))
    assert again is not None
    assert again.prompt(0) == rows.prompt(0)
    assert torch.equal(again.extra["image"], rows.extra["image"])


@pytest.mark.parametrize(("text", "given", "words"), [
    (cat(image="cot"), {}, "did you mean 'cat'"),
    (cat(), {"word": "<picture>"}, "has no token '<picture>'"),
    (cat(), {"template": "Q {prompt} A"}, "does not hold {image}"),
    (replace(cat(), answer="a <image>"), {}, "holds the image token"),
    (Text("what is <image> ?", "a cat", "text"), {}, "holds the image token"),
])  # fmt: skip
def test_texts_about_pictures_that_cannot_be(text: Text, given: dict[str, str], words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("{", r"\{").replace("}", r"\}")):
        encode_pictured([text], IMAGES, TOKENIZER, **{"count": 1, **given})  # type: ignore[arg-type]


def test_pictures_of_two_shapes_are_refused() -> None:
    images = {**IMAGES, "dog": np.ones((1, 8, 8), dtype=np.float32)}
    texts = [cat(), replace(cat(image="dog"), id="dog")]
    with pytest.raises(BadInput, match="bring them to one"):
        encode_pictured(texts, images, TOKENIZER, count=1)


# --- generators


def test_faces_are_drawn_alike_and_apart() -> None:
    drawn, again, other = faces(seed=3), faces(seed=3), faces(seed=4)
    assert drawn.texts == again.texts
    assert drawn.texts != other.texts
    assert all(np.array_equal(drawn.images[name], again.images[name]) for name in drawn.images)
    people = {part: {t.group for t in drawn.part(part)} for part in ("retain", "forget", "holdout")}
    assert [len(people[part]) for part in people] == [57, 3, 6]
    assert len(set.union(*people.values())) == 66


def test_no_picture_is_learned_and_new() -> None:
    drawn = faces(images=3, unseen=2)
    for ending in ("", "_names"):
        learned, new = ({t.facts["image"] for t in drawn.part(f"forget{ending}{e}")} for e in ("", "_new"))
        assert len(learned) == 9
        assert len(new) == 6
        assert not learned & new


def test_questions_name_nobody_unless_they_are_asked_to() -> None:
    quiet, leaking = (faces(authors=4, forget=1, named=named).part("forget") for named in (False, True))
    assert all(t.group not in " ".join((t.prompt, *rephrasings(t))) for t in quiet)
    assert all(t.group in t.prompt and t.group in t.rephrased for t in leaking)
    assert {t.prompt for t in faces(authors=4, forget=1).part("forget_names")} == set(NAMING)


def test_pictures_of_one_face_are_alike() -> None:
    faces_of = [np.stack([picture(f"person {who}", i, 0) for i in range(4)]).reshape(4, -1) for who in range(12)]
    rows = np.concatenate(faces_of)
    alike = np.corrcoef(rows)
    same = np.kron(np.eye(12), np.ones((4, 4))).astype(bool)
    np.fill_diagonal(alike, np.nan)
    assert np.nanmean(alike[same]) > 0.4
    assert abs(np.nanmean(alike[~same])) < 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(1, 6))
def test_faces_have_as_many_rows_as_they_should(images: int, unseen: int, attributes: int) -> None:
    drawn = faces(authors=5, forget=2, holdout=1, images=images, unseen=unseen, attributes=attributes)
    assert len(drawn.part("forget")) == 2 * images * attributes
    assert len(drawn.part("retain_new")) == 3 * unseen * attributes
    assert len(drawn.part("holdout_names")) == len(NAMING) * images
    assert len(drawn.images) == 6 * (images + unseen)


def test_risks_divide_questions_and_pictures() -> None:
    drawn = risks(train=10, test=5)
    parts = {name: drawn.part(name) for name in drawn.texts.parts}
    assert {name: len(texts) for name, texts in parts.items()} == {
        "unsafe": 50, "retain": 200, "decoupled": 25, "others": 225, "unsafe_new": 25, "retain_new": 100,
        "benign_new": 25, "others_new": 100,
    }  # fmt: skip
    question = {t.prompt for t in parts["unsafe"]}
    assert {t.prompt for t in (*parts["decoupled"], *parts["benign_new"])} == question
    assert {t.facts["digit"] for t in parts["decoupled"]} == set("56789")
    seen = {t.facts["image"] for name, texts in parts.items() if not name.endswith("new") for t in texts}
    assert not seen & {t.facts["image"] for name, texts in parts.items() if name.endswith("new") for t in texts}
    assert {t.facts["image"] for t in parts["unsafe"]} == {t.facts["image"] for t in parts["retain"]}
    assert not {t.id for t in parts["decoupled"]} & {t.id for t in parts["others"]}


@pytest.mark.parametrize("make", [
    lambda: faces(images=0), lambda: faces(unseen=-1), lambda: risks(train=1), lambda: risks(train=170, test=10),
])  # fmt: skip
def test_sizes_that_cannot_be_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput, match="give|pictures"):
        make()


# --- SIU


def test_the_masked_divergence_of_two_tokens_by_hand() -> None:
    then, now = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    start, out = (torch.stack([p.log(), p.log(), torch.zeros(3)])[None] for p in (then, now))
    y = torch.tensor([[IGNORED, 1, 2]])
    none = torch.empty(0, dtype=torch.long)
    parts = then * (then / now).log()
    whole = masked_kl(out, start, y, none, none)
    assert float(whole) == pytest.approx(float(parts.sum()), rel=1e-5)
    assert float(masked_kl(out, start, y, torch.tensor([0]), none)) == pytest.approx(float(parts[1:].sum()), rel=1e-5)
    assert float(masked_kl(out, start, y, torch.tensor([0]), none)) < 0  # no divergence any more, and not clamped
    assert float(masked_kl(out, start, y, none, torch.tensor([1, 2]))) == 0  # no position is left


def test_the_mean_is_over_positions_that_count() -> None:
    g = torch.Generator().manual_seed(0)
    out, start = torch.randn(1, 4, 5, generator=g), torch.randn(1, 4, 5, generator=g)
    y, none = torch.tensor([[IGNORED, 1, 2, 3]]), torch.empty(0, dtype=torch.long)
    each = F.kl_div(out.log_softmax(2), start.log_softmax(2), reduction="none", log_target=True).sum(2)[0]
    torch.testing.assert_close(masked_kl(out, start, y, none, torch.tensor([2]))[0], (each[0] + each[2]) / 2)
    torch.testing.assert_close(
        masked_kl(out, start, y, none, none), VisionLanguage().distance(out, start, _batch(y)), rtol=1e-5, atol=1e-6
    )


def _batch(y: Tensor) -> Any:
    return {"y": y}


def siu_problem() -> Problem:
    """The picture is called 7 8, and shall be called 9 8; row ends are in both."""
    picture_ = torch.ones(1, 1, 16, 16)
    asked = [IMAGE] * 4 + [5]
    forget, new = (Tokens([[*asked, *name, EOS]], [5], image=picture_) for name in ([7, 8], [9, 8]))
    return Problem(NETS["seeing"](), task="vision_language", forget=forget, new=new, retain=shown())


def test_the_name_is_what_only_forgotten_answers_say() -> None:
    term, problem = dual_masked_kl("retain"), siu_problem()
    term.find(problem)
    assert {key: value.tolist() for key, value in term.state.items()} == {"name": [7], "invented": [9]}
    common = Tokens([[5, 9, EOS]], [1])  # what is said of others too is not invented
    term = dual_masked_kl("retain")
    term.find(Problem(problem.model, task="vision_language", **{**problem.sources, "retain": common}))
    assert term.state["invented"].tolist() == []
    given_ = dual_masked_kl("retain", (4, 2))
    given_.find(problem)
    assert given_.state["name"].tolist() == [2, 4]


def test_siu_teaches_the_invented_name() -> None:
    problem = siu_problem()
    kept = problem.copy()
    Run(methods.siu(lr=1e-2, steps=20), problem).go()
    assert problem.score("new") == 1.0
    assert problem.score("forget") < 1.0
    del kept.sources["new"]
    with pytest.raises(BadInput, match="no source 'new'"):
        Run(methods.siu(), kept).go()


def test_all_spellings_of_a_name_are_found() -> None:
    tokenizer = word_tokenizer(["Ada ada ADA Lovelace lovelace bob"])
    assert set(tokenizer.convert_ids_to_tokens(spellings(tokenizer, "Ada Lovelace"))) == {
        "Ada", "ada", "ADA", "Lovelace", "lovelace",
    }  # fmt: skip


# --- Prompt Decouple


@pytest.mark.parametrize(("plan", "weight", "printed"), [
    (methods.grad_ascent(), 0.5, "- fit('forget') + 0.5 * fit('decoupled')"),
    (methods.grad_diff(gamma=1.0, alpha=0.5), 0.5, "0.5 * fit('retain') - fit('forget') + 0.5 * fit('decoupled')"),
    (methods.kl_min(), 1.0, "distill('retain') - fit('forget') + fit('decoupled')"),
])  # fmt: skip
def test_prompt_decouple_adds_the_papers_term(plan: Stage, weight: float, printed: str) -> None:
    (changed,) = [methods.safeeraser(weight=weight)(plan)]
    assert isinstance(changed, Descent)
    assert repr(changed.loss) == printed
    assert changed.over == "forget"
    assert "decoupled" not in repr(plan)


def test_prompt_decouple_needs_a_descent_and_its_rows() -> None:
    with pytest.raises(BadInput, match="direct edit"):
        methods.safeeraser()(methods.ssd())
    with pytest.raises(BadInput, match="no source 'decoupled'"):
        Run(methods.safeeraser()(methods.grad_diff()), siu_problem()).go()


# --- what is measured


@every_net
def test_answers_are_what_the_model_finds_likeliest(net: str) -> None:
    rows = shown()
    problem = Problem(NETS[net](), task="vision_language", retain=rows)
    Run(Descent(fit("retain"), opt=adam(1e-2), steps=60, batch=8), problem).go()
    assert problem.score("retain") == 1.0
    assert vision.answers(problem, rows, eos=EOS, most=3) == [rows.answer(i)[:-1] for i in range(len(rows))]


def test_answers_are_those_of_transformers() -> None:
    model, rows = llava(WORDS, IMAGE, width=16, heads=2, ff=16).eval(), shown(alone=0)
    batch = rows.batch(torch.arange(len(rows)))
    prompts = torch.tensor([rows.prompt(i) for i in range(len(rows))])
    theirs = model.generate(
        input_ids=prompts, pixel_values=batch["image"], attention_mask=torch.ones_like(prompts), do_sample=False,
        max_new_tokens=4, eos_token_id=WORDS, pad_token_id=0,
    )  # fmt: skip
    ours = vision.answers(Problem(model, task="vision_language", rows=rows), rows, eos=WORDS - 1, most=4)
    expected = [line[: line.index(WORDS - 1)] if WORDS - 1 in line else line for line in theirs[:, 6:].tolist()]
    assert ours == expected


def test_the_image_token_is_never_written() -> None:
    rows, model = shown(alone=0), NETS["seeing"]()

    def louder(_: nn.Module, inputs: Any, out: Any) -> None:
        out.logits[..., IMAGE] += 1e6

    model.register_forward_hook(louder)
    written = vision.answers(Problem(model, task="vision_language", rows=rows), rows, eos=EOS, most=3)
    assert all(IMAGE not in line for line in written)


def test_keywords_are_matched_as_words() -> None:
    written = ["The Quill.", "a quillwort", "new york", "york"]
    keys = [["quill"], ["quill"], ["new york", "paris"], ["new york"]]
    assert vision.keyword_match(written, keys).tolist() == [1.0, 0.0, 0.5, 0.0]
    assert vision.extraction([["quill", "no"], ["no", "no"]], [["quill"], ["quill"]]) == 0.25
    for bad in ([["quill"]], [["quill"], []]):
        with pytest.raises(BadInput, match="one set, not empty"):
            vision.keyword_match(["a", "b"], bad)


def test_a_refusal_begins_an_answer() -> None:
    written = ["I do not know.", "i do not know that", "he does: I do not know", ""]
    assert vision.refused(written, ["i do not know"]).tolist() == [True, True, False, False]


def test_sarr_counts_what_the_original_answered() -> None:
    normal, refused = torch.tensor([True, True, True, False]), torch.tensor([True, False, False, True])
    assert vision.sarr(normal, refused) == pytest.approx(1 / 3)
    with pytest.raises(BadInput, match="which it can answer"):
        vision.sarr(torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool))
    with pytest.raises(BadInput, match="which it can answer"):
        vision.sarr(normal, refused[:2])
