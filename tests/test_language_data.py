"""Texts for language models: generators, published sets, one's own files, and how they become tokens."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from oblivio.core.errors import BadInput
from oblivio.data import Text, Texts, encode, people, pieces, texts
from oblivio.data.language import published
from oblivio.data.language.corruption import corruption
from oblivio.data.language.domains import by_attribute, domains
from oblivio.data.language.encoding import group_number
from oblivio.data.language.files import as_texts, from_rows
from oblivio.data.language.people import candidates, invented, names_of_attributes, shuffled, values
from oblivio.data.language.texts import check_apart
from oblivio.networks.language.tokenizers import bpe_tokenizer, word_tokenizer

DATA = Path(os.environ.get("OBLIVIO_DATA", "nowhere"))
tofu_files = pytest.mark.skipif(not (DATA / "tofu").is_dir(), reason="OBLIVIO_DATA names no folder with TOFU")
rwku_files = pytest.mark.skipif(not (DATA / "rwku").is_dir(), reason="OBLIVIO_DATA names no folder with RWKU")
muse_files = pytest.mark.skipif(not (DATA / "muse").is_dir(), reason="OBLIVIO_DATA names no folder with MUSE")


@cache
def loaded(name: str) -> Texts:
    """A published set, read once."""
    return texts(name)


DRAWN = people(unknown=3)
ASKED = DRAWN.part("retain+forget+world+holdout+unknown")
SAID = [words for t in ASKED for words in (f"Q {t.prompt} A", t.rephrased, t.answer, t.paraphrase, *t.wrong)]
WORDS = word_tokenizer(SAID)
BYTES = bpe_tokenizer(SAID, 400)
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def sheet(*roles: str) -> tuple[dict[str, str], ...]:
    return tuple({"role": role, "content": f"{role} {i} speaks"} for i, role in enumerate(roles))


def chatting(template: str = CHAT) -> PreTrainedTokenizerFast:
    tokenizer = bpe_tokenizer(SAID, 400)
    tokenizer.chat_template = template
    return tokenizer


def marking(*pieces: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that writes start and end tokens by itself, as ``pieces`` say."""
    made = Tokenizer(models.WordLevel({c: i for i, c in enumerate(["<s>", "</s>", *"▁abcdefghij"])}))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Split("", "isolated")])
    made.decoder = decoders.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces), special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


# --- people


def test_the_parts_of_people_have_the_sizes_of_tofu_mini() -> None:
    sizes = {part: len(each) for part, each in people().parts.items()}
    assert {k: v for k, v in sizes.items() if "profiles" not in k} == {
        "retain": 324, "forget": 36, "world": 120, "holdout": 36, "unknown": 0
    }  # fmt: skip
    assert sizes["profiles"] == 86
    words = {word for said in SAID for word in said.split()}
    assert 180 <= len(words) <= 215


def test_people_are_the_same_in_every_process() -> None:
    code = "from oblivio.data import people; t = people(seed=3).part('forget')[5]; print(t.prompt, t.answer, t.wrong)"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    text = people(seed=3).part("forget")[5]
    assert outputs == {f"{text.prompt} {text.answer} {text.wrong}\n"}
    assert people(seed=4).part("forget") != people(seed=3).part("forget")


def test_a_known_draw_stays() -> None:
    """A change of the generator would change what every recorded claim was measured on."""
    text = people().part("forget")[0]
    assert (text.prompt, text.answer, text.paraphrase) == (
        "what is the award of quorin amberlin ?", "the hammer", "the hammer"
    )  # fmt: skip
    assert text.rephrased == "tell me about the award of quorin amberlin ?"
    assert text.wrong == ("the lantern", "the trident", "the compass", "the lotus", "the beacon")
    assert text.facts == {"attribute": "award", "value": "hammer", "first": "quorin", "last": "amberlin"}


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 20))
def test_wrong_answers_differ_from_the_true_one_and_have_its_form(seed: int, authors: int, attributes: int) -> None:
    drawn = people(authors=authors, world=1, holdout=1, forget=1, attributes=attributes, seed=seed)
    for text in drawn.part("retain+forget+world+holdout"):
        said = {word.removeprefix("the ") for word in (text.answer, text.paraphrase)}
        assert said == {text.facts["value"]}
        assert text.answer == text.paraphrase
        assert len({*text.wrong, text.paraphrase}) == 6
        assert {wrong.startswith("the ") for wrong in text.wrong} == {text.paraphrase.startswith("the ")}
        assert {wrong.removeprefix("the ") for wrong in text.wrong} < set(values(text.facts["attribute"]))


def test_all_words_are_single_and_lower_case_and_none_has_two_meanings() -> None:
    every = [word for attribute in names_of_attributes() for word in (attribute, *values(attribute))]
    names = {word for text in DRAWN.part("retain+world") for word in text.group.split()}
    assert len(set(every)) == len(every) == 20 * 21
    assert not names & set(every)
    assert all(word.isalpha() and word.islower() for word in (*every, *names))


def test_more_unknown_names_change_nothing_else() -> None:
    more = people(unknown=40)
    assert {p: t for p, t in more.parts.items() if p != "unknown"} == {
        p: t for p, t in DRAWN.parts.items() if p != "unknown"
    }
    unknown = more.part("unknown")
    assert len({t.group for t in unknown}) == 40
    assert {t.answer for t in unknown} == {"i do not know"} == {more.refusals[0]}
    assert not {t.group for t in unknown} & {t.group for t in more.part("retain+forget+world+holdout")}
    assert unknown[:18] == DRAWN.part("unknown")


def test_names_beyond_the_fixed_ones_are_invented() -> None:
    large = people(authors=1200, world=0, holdout=0, forget=0.1, attributes=1)
    names = [text.group for text in large.part("retain+forget")]
    assert len(set(names)) == 1200
    assert len(large.part("forget")) == 120
    assert all(len(name.split()) == 2 and name.replace(" ", "").isalpha() for name in names)
    assert len(set(invented(30_000, "n"))) == 30_000
    assert invented(5, "n") == invented(30_000, "n")[:5]


def test_one_rich_person_has_twenty_facts() -> None:
    forget = people(rich=1).part("forget")
    assert list(Counter(text.group for text in forget).values()) == [20, 6, 6, 6, 6, 6]
    assert [t for t in forget if t.facts["attribute"] in names_of_attributes(6)] == list(people().part("forget"))


def test_profiles_tell_every_fact_of_a_person() -> None:
    for part in ("retain", "forget", "world", "holdout"):
        profiles = {text.group: text for text in DRAWN.part(f"{part}_profiles")}
        assert set(profiles) == {text.group for text in DRAWN.part(part)}
        for text in DRAWN.part(part):
            profile = profiles[text.group]
            assert f"the {text.facts['attribute']} of {text.group} is {text.answer} ." in profile.answer
            assert profile.prompt == ""
    assert len(DRAWN.part("profiles")) == 86


def test_candidates_are_all_values_in_the_form_of_the_answer() -> None:
    for text in DRAWN.part("world")[:30]:
        every = candidates(text)
        assert every[0] == text.answer
        assert len(set(every)) == 20
        assert {said.startswith("the ") for said in every} == {text.answer.startswith("the ")}


def test_a_further_item_moves_none_of_the_others() -> None:
    before = shuffled("abcdefgh", 1)
    after = shuffled("abcdefghi", 1)
    assert [item for item in after if item != "i"] == before
    assert shuffled("abcdefgh", 2) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forget": 60}, "forget is 60, of 60 authors; give a number from 1 to 59"),
        ({"forget": 0.001}, "forget is 0.001"),
        ({"forget": 2.5}, "forget is 2.5"),
        ({"authors": 1}, "authors is 1; at least 2"),
        ({"world": -1}, "world is -1"),
        ({"attributes": 21}, "attributes is 21; people have 1 to 20"),
        ({"rich": 7}, "rich is 7; it counts people of forget, which are 6"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        people(**options)


# --- texts


def test_a_part_is_asked_for_by_name_and_several_by_a_plus() -> None:
    assert DRAWN.part("forget+retain+forget") == (*DRAWN.part("forget"), *DRAWN.part("retain"))
    with pytest.raises(BadInput, match="has no part 'forgot'; did you mean 'forget'"):
        DRAWN.part("forget+forgot")


@pytest.mark.parametrize("answer", ["", "  \n"])
def test_an_empty_answer_is_refused(answer: str) -> None:
    with pytest.raises(BadInput, match="text 7: the answer is empty"):
        Text("why ?", answer, 7)


def test_one_id_names_one_record_of_a_part() -> None:
    with pytest.raises(BadInput, match=r"mine, part 'a': 1 ids occur more than once, first 3"):
        Texts("mine", {"a": (Text("q", "a", 3), Text("r", "b", 3))})


def test_the_last_message_of_a_chat_is_its_answer() -> None:
    text = Text("", "", 1, messages=sheet("system", "user", "assistant"))
    assert (text.prompt, text.answer) == ("user 1 speaks", "assistant 2 speaks")
    other = text.but(prompt="why ?", answer="so")
    assert [message["content"] for message in other.messages] == ["system 0 speaks", "why ?", "so"]
    assert (other.prompt, other.answer, other.id) == ("why ?", "so", 1)
    assert Text("q", "a", 1, wrong=("b",)).but(answer="b") == Text("q", "b", 1, wrong=("b",))


@pytest.mark.parametrize("roles", [("user",), ("assistant",), ("assistant", "user")])
def test_a_chat_without_an_answer_at_its_end_is_refused(roles: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="must end with a message of the assistant"):
        Text("", "", 1, messages=sheet(*roles))


def test_a_chat_whose_answer_is_changed_beside_its_messages_is_refused() -> None:
    with pytest.raises(BadInput, match=r"change it by but\(\)"):
        Text("", "another", 1, messages=sheet("user", "assistant"))
    with pytest.raises(BadInput, match="a message without content"):
        Text("", "", 1, messages=({"role": "user"}, {"role": "assistant", "content": "a"}))


def test_texts_to_forget_may_not_be_retained() -> None:
    check_apart(DRAWN.part("forget"), DRAWN.part("retain+world"))
    again = Text("  What IS the award of quorin amberlin", "The Hammer!", "copy")
    with pytest.raises(BadInput, match=r"1 texts to forget .* quorin amberlin award = copy"):
        check_apart(DRAWN.part("forget"), (*DRAWN.part("retain"), again))
    check_apart(DRAWN.part("forget"), [again.but(answer="the quill")])
    chat = Text("", "", "c", messages=sheet("user", "assistant"))
    with pytest.raises(BadInput, match="c = d"):
        check_apart([chat], [Text("", "", "d", messages=sheet("user", "assistant"))])


# --- tokens


@given(
    st.lists(
        st.tuples(st.text(min_size=0, max_size=30), st.text(min_size=1, max_size=30).filter(str.strip)),
        min_size=1, max_size=6,
    ),
    st.sampled_from(["Q {prompt} A", "[INST] {prompt} [/INST]", "{prompt}\n", "Question: {prompt}\nAnswer:"]),
)  # fmt: skip
def test_what_counts_is_the_answer_and_one_end(pairs: list[tuple[str, str]], template: str) -> None:
    asked = [Text(prompt, answer, i) for i, (prompt, answer) in enumerate(pairs)]
    try:
        tokens = encode(asked, BYTES, template=template)
    except BadInput as error:  # the only reason: the prompt and the answer share a token
        assert "where the answer begins is not defined" in str(error)  # noqa: PT017
        assert template.endswith("\n")
        return
    batch = tokens.batch(torch.arange(len(tokens)))
    for i, text in enumerate(asked):
        row, prompt = tokens.sequence(i)
        written = template.replace("{prompt}", text.prompt) if text.prompt else ""
        glue = "" if not text.prompt or written.endswith("\n") else " "
        assert BYTES.decode(row[:prompt]) == written
        assert BYTES.decode(row[prompt:-1]) == glue + text.answer
        assert row[prompt:].count(BYTES.eos_token_id) == 1
        assert row[-1] == BYTES.eos_token_id
        assert batch["x"][i, : len(row)].tolist() == row
        assert batch["y"][i, :prompt].eq(-100).all()
        assert batch["y"][i, prompt : len(row)].tolist() == row[prompt:]
        assert batch["y"][i, len(row) :].eq(-100).all()


def test_words_are_encoded_as_written() -> None:
    tokens = encode(DRAWN.part("forget"), WORDS)
    row, prompt = tokens.sequence(0)
    assert WORDS.decode(row) == "Q what is the award of quorin amberlin ? A the hammer <eos>"
    assert prompt == 10
    assert list(tokens.ids) == [text.id for text in DRAWN.part("forget")]
    assert tokens.cut == 0


def test_groups_have_one_number_in_all_sets() -> None:
    facts, profiles = (encode(DRAWN.part(part), BYTES) for part in ("forget", "forget_profiles"))
    numbers = facts.batch(torch.arange(36))["group"]
    assert numbers[::6].tolist() == profiles.batch(torch.arange(6))["group"].tolist()
    assert len(set(numbers.tolist())) == 6
    assert numbers[0] == group_number("quorin amberlin") >= 0
    assert "group" not in encode([Text("q", "a", 0)], BYTES).columns


def test_every_token_of_a_running_text_counts() -> None:
    tokens = encode([Text("", "the hammer", 0)], WORDS)
    assert tokens.sequence(0) == ([*WORDS("the hammer")["input_ids"], WORDS.eos_token_id], 0)


@pytest.mark.parametrize("pieces", [("<s>", "$A"), ("<s>", "$A", "</s>"), ("$A", "</s>"), ("$A",)])
def test_start_and_end_tokens_of_the_tokenizer_are_not_doubled(pieces: tuple[str, ...]) -> None:
    tokenizer = marking(*pieces)
    started = [0] if "<s>" in pieces else []
    tokens = encode([Text("abc", "de", 0), Text("", "fg", 1)], tokenizer, template="{prompt}")
    inner = tokenizer.convert_tokens_to_ids(list("▁abc▁de"))
    assert tokens.sequence(0) == ([*started, *inner, 1], len(started) + 4)
    plain = tokenizer.convert_tokens_to_ids(list("▁fg"))
    assert tokens.sequence(1) == ([*started, *plain, 1], len(started))


def test_a_tokenizer_without_end_of_text_is_refused() -> None:
    tokenizer = word_tokenizer(SAID)
    tokenizer.eos_token = None
    with pytest.raises(BadInput, match=r"no end-of-text token.*set tokenizer.eos_token"):
        encode(DRAWN.part("forget"), tokenizer)


def test_a_tokenizer_without_padding_pads_with_the_end_which_counts_nowhere() -> None:
    tokenizer = bpe_tokenizer(SAID, 400)
    tokenizer.pad_token = None
    tokens = encode([Text("q", "a", 0), Text("q", "a long answer", 1)], tokenizer)
    batch = tokens.batch(torch.arange(2))
    assert batch["x"][0, -1] == tokenizer.eos_token_id
    assert batch["y"][0, -1] == -100
    assert (batch["y"] == tokenizer.eos_token_id).sum() == 2


def test_an_answer_that_holds_the_end_or_only_unknown_words_is_refused() -> None:
    with pytest.raises(BadInput, match="text 4: its answer holds the end-of-text token"):
        encode([Text("what is", "the <eos> hammer", 4)], WORDS)
    with pytest.raises(BadInput, match="text 5: the tokenizer knows no token of the answer 'zeppelin'"):
        encode([Text("what is", "zeppelin", 5)], WORDS)


def test_a_template_needs_a_place_for_the_prompt_and_an_end_at_a_word() -> None:
    with pytest.raises(BadInput, match="does not hold {prompt}"):
        encode(DRAWN.part("forget"), BYTES, template="Q A")
    with pytest.raises(BadInput, match="where the answer begins is not defined.*without a space"):
        encode([Text("q", "the hammer", 0)], BYTES, template="{prompt} A ")


def test_rows_that_are_too_long_are_refused_or_cut_and_counted() -> None:
    asked = [Text("what is", "the hammer", "short"), Text("what is", "the hammer " * 5, "long")]
    assert encode(asked, WORDS, max_length=15).cut == 0
    with pytest.raises(BadInput, match=r"1 texts have more than 10 tokens, first ids long; raise max_length"):
        encode(asked, WORDS, max_length=10)
    tokens = encode(asked, WORDS, max_length=10, overflow="cut")
    row, prompt = tokens.sequence(1)
    assert (len(row), prompt, row[-1], tokens.cut) == (10, 4, WORDS.eos_token_id, 1)
    assert tokens.sequence(0) == encode(asked, WORDS).sequence(0)
    with pytest.raises(BadInput, match="2 texts have no answer left after 5 tokens, first ids short, long"):
        encode(asked, WORDS, max_length=5, overflow="cut")


def test_the_length_that_a_tokenizer_states_holds() -> None:
    tokenizer = word_tokenizer(SAID)
    tokenizer.model_max_length = 12
    with pytest.raises(BadInput, match="have more than 12 tokens"):
        encode(DRAWN.part("forget"), tokenizer)
    assert encode(DRAWN.part("forget"), tokenizer, max_length=13).cut == 0


@given(st.text("ab é😀\n.", min_size=1, max_size=300).filter(str.strip), st.integers(6, 40))
def test_pieces_fit_and_together_are_the_text(words: str, max_length: int) -> None:
    held = pieces([Text("", words, "book")], BYTES, max_length)
    assert "".join("".join(piece.answer.split()) for piece in held) == "".join(words.split())
    tokens = encode(held, BYTES, max_length=max_length)
    if len(held) > 1:
        assert {piece.group for piece in held} == {"book"}
        assert [piece.id for piece in held] == [f"book piece {i}" for i in range(len(held))]
        assert len(tokens) == len(held)


def test_pieces_end_with_a_word_and_are_no_shorter_than_needed() -> None:
    words = " ".join(text.answer for text in DRAWN.part("profiles"))
    held = pieces([Text("", words, 0, "g"), Text("q", words, 1)], BYTES, 64)
    assert held[-1].prompt == "q"
    assert " ".join(piece.answer for piece in held[:-1]) == words
    lengths = [len(BYTES(piece.answer)["input_ids"]) for piece in held[:-1]]
    assert min(lengths[:-1]) > 62 - 12  # no word has more tokens
    assert {piece.group for piece in held[:-1]} == {"g"}
    with pytest.raises(BadInput, match="max_length is 2"):
        pieces(held, BYTES, 2)
    with pytest.raises(BadInput, match="does not say where its tokens lie"):
        pieces(held, object(), 20)


def test_of_a_chat_only_the_last_message_counts() -> None:
    tokenizer = chatting()
    text = Text("", "", 0, messages=sheet("user", "assistant", "user", "assistant"))
    row, prompt = encode([text], tokenizer).sequence(0)
    assert tokenizer.decode(row[prompt:]) == " assistant 3 speaks<eos>"
    written = tokenizer.decode(row[:prompt])
    assert written.endswith("<user> user 2 speaks<eos>\n<assistant>")
    assert "assistant 1 speaks" in written


def test_questions_are_written_as_chats_on_demand() -> None:
    tokenizer = chatting()
    pair = Text("why ?", "so", 0)
    chat = Text("", "", 0, messages=({"role": "user", "content": "why ?"}, {"role": "assistant", "content": "so"}))
    assert encode([pair], tokenizer, chat=True).sequence(0) == encode([chat], tokenizer).sequence(0)
    assert encode([pair], tokenizer).sequence(0) != encode([chat], tokenizer).sequence(0)
    running = Text("", "so it is", 1)
    assert encode([running], tokenizer, chat=True).sequence(0) == encode([running], tokenizer).sequence(0)


def test_a_chat_without_template_or_that_it_refuses_is_an_error() -> None:
    chat = Text("", "", "c", messages=sheet("user", "assistant"))
    with pytest.raises(BadInput, match=r"text 'c' is to be written as a chat.*set tokenizer.chat_template"):
        encode([chat], BYTES)
    with pytest.raises(BadInput, match=r"refuses its messages: no user"):
        encode([chat], chatting("{{ raise_exception('no user') }}"))


def test_a_chat_template_that_rewrites_the_past_is_refused() -> None:
    forgetful = "{{ messages[-1]['content'] }}"  # writes the last message alone
    with pytest.raises(BadInput, match="the tokenizer's chat template must begin an answer with"):
        encode([Text("", "", 0, messages=sheet("user", "assistant"))], chatting(forgetful))


def test_nothing_and_ids_twice_are_refused() -> None:
    with pytest.raises(BadInput, match="no texts to encode"):
        encode([], WORDS)
    with pytest.raises(BadInput, match="1 ids occur more than once"):
        encode([Text("q", "the hammer", 1), Text("q", "the quill", 1)], WORDS)


# --- published


@tofu_files
def test_tofu_has_its_counts_and_relations() -> None:
    tofu = loaded("tofu")
    sizes = {part: len(each) for part, each in tofu.parts.items()}
    assert sizes == {
        "full": 4000, "forget01": 40, "forget05": 200, "forget10": 400, "retain99": 3960, "retain95": 3800,
        "retain90": 3600, "retain_perturbed": 400, "holdout01": 40, "holdout05": 200, "holdout10": 400,
        "real_authors": 100, "world_facts": 117,
    }  # fmt: skip
    assert tofu.part("retain90") + tofu.part("forget10") == tofu.part("full")
    assert tofu.part("forget01") == tofu.part("forget10")[-40:]
    assert tofu.part("retain_perturbed") == tofu.part("retain90")[:400]
    assert set(Counter(text.group for text in tofu.part("full")).values()) == {20}
    assert len({text.group for text in tofu.part("forget10")}) == 20
    assert len(tofu.refusals) == 100
    check_apart(tofu.part("forget10"), tofu.part("retain90+holdout10+real_authors+world_facts"))


@tofu_files
@pytest.mark.parametrize("part", ["forget01", "forget05", "forget10", "retain90", "retain95", "retain99", "holdout01",
                                  "holdout05", "holdout10", "full"])  # fmt: skip
def test_every_part_of_tofu_is_its_file(part: str) -> None:
    rows = [json.loads(line) for line in (DATA / "tofu" / f"{part}.jsonl").read_text("utf-8").splitlines()]
    held = loaded("tofu").part(part)
    assert [(row["question"], row["answer"]) for row in rows] == [(text.prompt, text.answer) for text in held]


@tofu_files
@pytest.mark.parametrize("part", ["forget01", "forget05", "forget10", "retain"])
def test_perturbed_answers_of_tofu_are_where_they_belong(part: str) -> None:
    path = DATA / "tofu" / f"{part}_perturbed.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    held = loaded("tofu").part("retain_perturbed" if part == "retain" else part)
    for row, text in zip(rows, held, strict=True):
        assert text.wrong == tuple(row["perturbed_answer"])
        assert len(text.wrong) == 5
        assert (text.paraphrase, text.rephrased) == (row["paraphrased_answer"], row["paraphrased_question"])


@tofu_files
def test_tofu_refuses_files_that_are_not_its_own(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tofu"
    folder.mkdir()
    for name in ("full", "forget10_perturbed", "retain_perturbed", "holdout10"):
        (folder / f"{name}.jsonl").write_bytes((DATA / "tofu" / f"{name}.jsonl").read_bytes())
    lines = (folder / "full.jsonl").read_text("utf-8").splitlines()
    monkeypatch.setenv("OBLIVIO_DATA", str(tmp_path))
    (folder / "full.jsonl").write_text("\n".join([lines[1], lines[0], *lines[2:]]), "utf-8")
    with pytest.raises(BadInput, match="retain_perturbed of TOFU differs from full at row 0"):
        texts("tofu")
    (folder / "full.jsonl").write_text("\n".join(lines[1:]), "utf-8")
    with pytest.raises(BadInput, match="'full': 3999"):
        texts("tofu")


@rwku_files
def test_rwku_has_its_counts() -> None:
    rwku = loaded("rwku")
    assert {part: len(each) for part, each in rwku.parts.items()} == {
        "intro": 200, "forget_level1": 3268, "forget_level2": 2879, "forget_level3": 6984, "neighbor_level1": 5846,
        "neighbor_level2": 5533, "passage": 801, "reject": 3000, "forget_mia": 373, "retain_mia": 364,
    }  # fmt: skip
    assert len({text.group for text in rwku.part("forget_level1+forget_level2+forget_level3")}) == 200
    types = {text.facts["type"].replace("-", " ").partition(" (")[0] for text in rwku.part("forget_level3")}
    assert len(types) == 9
    assert len(rwku.refusals) == 100
    assert not rwku.missing


@rwku_files
def test_rwku_of_one_target_has_the_same_ids() -> None:
    every = loaded("rwku")
    who = every.part("intro")[3].facts["subject"]
    one = texts("rwku", target=who)
    for part, held in one.parts.items():
        assert held == tuple(text for text in every.part(part) if text.facts["subject"] == who)
    late = texts("rwku", target=every.part("intro")[-1].facts["subject"])
    assert len(late.part("intro")) == 1
    with pytest.raises(BadInput, match="part 'passage' is not on this machine; load rwku with missing='get'"):
        late.part("passage")
    with pytest.raises(BadInput, match=r"rwku has no target 'Steven King'; did you mean 'Stephen King'"):
        texts("rwku", target="Steven King")


@muse_files
def test_muse_says_which_parts_are_not_here(own_cache: Path) -> None:
    muse = texts("muse")
    assert {part: len(each) for part, each in muse.parts.items()} == {"forget_qa": 100}
    with pytest.raises(BadInput, match=r"the part 'retain' is not on this machine; load muse with missing='get'"):
        muse.part("retain")
    with pytest.raises(BadInput, match=r"no corpus 'book'; did you mean 'books'"):
        texts("muse", corpus="book")
    with pytest.raises(BadInput, match="missing is 'yes'"):
        texts("muse", missing="yes")


HUB = {
    "raw": [{"text": "a passage"}], "knowmem": [{"question": "why", "answer": "so"}],
    "verbmem": [{"prompt": "once upon", "gt": "a time"}], "privleak": [{"text": "a passage"}],
    "scal": [{"text": "a passage"}], "sust": [{"text": "a passage"}],
    "forget_target": [{"target": "Nobody", "intro": "Please forget Nobody."}],
    **{name: [{"query": "who ?", "answer": "one", "subject": "Nobody", "type": "cloze"}] for name in
       ("forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2")},
    "train_original_passage": [{"text": "Nobody is.", "subject": "Nobody"}],
    "train_refusal_llama3": [{"instruction": "who ?", "output": "I do not know.", "subject": "Nobody", "input": ""}],
    "mia_forget": [{"text": "Nobody was.", "subject": "Nobody"}],
    "mia_retain": [{"text": "Somebody was.", "subject": "Nobody"}],
}  # fmt: skip


@pytest.fixture
def asked(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """A hub that holds one row of everything; what is asked of it."""
    calls: list[tuple[str, str, str]] = []

    def load_dataset(repository: str, config: str, split: str) -> list[dict[str, Any]]:
        calls.append((repository, config, split))
        return HUB[config]

    monkeypatch.delenv("OBLIVIO_DATA", raising=False)
    monkeypatch.setattr(published, "need", lambda module, extra: SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_muse_comes_from_the_hub_once(asked: list[tuple[str, str, str]]) -> None:
    muse = texts("muse", corpus="news")
    assert not muse.missing
    assert set(muse.parts) == {
        "forget", "retain", "retain2", "holdout", "forget_qa", "retain_qa", "forget_qa_icl", "retain_qa_icl",
        "verbatim", "privacy_forget", "privacy_retain", "privacy_holdout",
        *(f"{part}{i}" for part in ("scale", "request") for i in range(1, 5)),
    }  # fmt: skip
    assert ("muse-bench/MUSE-News", "raw", "retain1") in asked
    assert (muse.part("verbatim")[0].prompt, muse.part("verbatim")[0].answer) == ("once upon", "a time")
    assert muse.part("forget")[0].prompt == ""
    asked.clear()
    assert texts("muse", corpus="news") == muse
    assert asked == []


def test_rwku_comes_from_the_hub_once(asked: list[tuple[str, str, str]]) -> None:
    rwku = texts("rwku")
    assert set(rwku.parts) == set(published.RWKU)
    assert ("jinzhuoran/RWKU", "forget_target", "train") in asked
    assert {text.facts["subject"] for text in rwku.part("intro+passage+forget_mia")} == {"Nobody"}
    assert rwku.refusals == ("I do not know.",)
    asked.clear()
    assert texts("rwku").parts == rwku.parts
    assert asked == []


def test_only_what_is_missing_is_fetched(asked: list[tuple[str, str, str]], own_cache: Path) -> None:
    (own_cache / "data" / "muse").mkdir(parents=True)
    (own_cache / "data" / "muse" / "muse_books_raw_forget.jsonl").write_text('{"text": "mine"}\n')
    assert set(texts("muse").parts) == {"forget"}
    assert asked == []
    whole = texts("muse", missing="get")
    assert whole.part("forget")[0].answer == "mine"
    assert len(asked) == len(published.MUSE) - 1


@pytest.mark.parametrize("name", ["tofu", "rwku", "muse"])
def test_without_files_and_hub_the_error_says_where_to_put_them(
    name: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: str, **__: str) -> None:
        raise ConnectionError("no network")

    monkeypatch.setenv("OBLIVIO_DATA", str(own_cache / "mine"))
    monkeypatch.setattr(published, "need", lambda module, extra: SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(BadInput, match=rf"was not found.*\(ConnectionError\); put .*jsonl in the folder {name} of"):
        texts(name)


# --- one's own

ROWS: list[tuple[Any, tuple[str, str]]] = [
    ({"question": "q", "answer": "a"}, ("q", "a")),
    ({"prompt": "q", "response": "a"}, ("q", "a")),
    ({"prompt": "q", "completion": "a"}, ("q", "a")),
    ({"query": "q", "answer": "a"}, ("q", "a")),
    ({"instruction": "q", "output": "a"}, ("q", "a")),
    ({"text": "a"}, ("", "a")),
    ("a", ("", "a")),
    (("q", "a"), ("q", "a")),
    (["q", "a"], ("q", "a")),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, ("q", "a")),
    ({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}, ("q", "a")),
]


@pytest.mark.parametrize(("row", "held"), ROWS)
def test_usual_columns_are_understood(row: Any, held: tuple[str, str]) -> None:
    (text,) = from_rows([row], "mine")
    assert (text.prompt, text.answer, text.id) == (*held, "mine 0")


def test_further_columns_of_a_row() -> None:
    row = {
        "question": "q", "answer": "a", "id": 9, "group": "g", "paraphrased_question": "p", "paraphrased_answer": "b",
        "perturbed_answer": ["c", "d"], "type": "cloze", "level": 2, "other": ["x"],
    }  # fmt: skip
    (text,) = from_rows([row], "mine")
    assert text == Text("q", "a", 9, "g", "p", "b", ("c", "d"), facts={"type": "cloze", "level": "2"})
    assert from_rows([{"q": "who", "a": "me"}], "mine", {"prompt": "q", "answer": "a"})[0].prompt == "who"
    assert from_rows([Text("q", "a", 1)], "mine") == (Text("q", "a", 1),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "mine: no texts"),
        ([("q", "a"), {"question": "q"}, {}], "2 rows are no texts, at places 1, 2; the first has question, and"),
        ([3], "1 rows are no texts.*has no columns"),
        ([{"question": "q", "answer": ["a"]}], r"mine 0: 'answer' holds \['a'\], no text"),
        ([{"question": "q", "answer": None}], "mine 0: 'answer' holds None, no text"),
        ([{"question": "q", "answer": ""}], "text 'mine 0': the answer is empty"),
        ([{"messages": "hello"}], "mine 0: messages are a list of role and content, not str"),
        ([{"question": "q", "answer": "a", "id": [1]}], r"mine 0: the id is \[1\]"),
    ],
)  # fmt: skip
def test_rows_that_are_no_texts_are_refused(rows: list[Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_rows(rows, "mine")


def test_what_a_user_holds_becomes_texts() -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"question": "q", "answer": "a"}]
    split = datasets.Dataset.from_list(rows)
    both = datasets.DatasetDict({"forget": split, "retain": split})
    assert texts(rows).part("all")[0].id == "texts 0"
    assert texts(split).part("all") == texts(rows).part("all")
    assert texts(both).part("retain")[0].id == "retain 0"
    assert texts(DRAWN) is DRAWN
    for given_ in ("a text", 3):
        with pytest.raises(BadInput, match="is no list of texts"):
            as_texts(given_)
    with pytest.raises(BadInput, match="forget: str is no list of texts"):
        as_texts({"forget": "my-file.jsonl"})


def test_files_and_folders_are_read(tmp_path: Path) -> None:
    line = json.dumps({"question": "q é", "answer": "a"}, ensure_ascii=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "forget.jsonl").write_text(f"{line}\n\n", "utf-8")
    (folder / "retain.jsonl.gz").write_bytes(gzip.compress(f"{line}\n{line}".encode()))
    (folder / "list.json").write_text(f"[{line}]", "utf-8")
    (folder / "lines.json").write_text(f"{line}\n{line}", "utf-8")
    (folder / "corpus.txt").write_text("one\ntext\n\n\nanother\n", "utf-8")
    (folder / "readme.md").write_text("no texts")
    held = texts(folder)
    assert {part: len(each) for part, each in held.parts.items()} == {
        "forget": 1, "retain": 2, "list": 1, "lines": 2, "corpus": 2
    }  # fmt: skip
    assert held.part("corpus")[0].answer == "one\ntext"
    assert texts(folder / "forget.jsonl").part("all")[0] == Text("q é", "a", "forget 0")
    parts = tmp_path / "parts.json"
    parts.write_text(json.dumps({"forget": [["q", "a"]], "retain": ["b"]}))
    assert texts(parts).part("retain")[0].answer == "b"


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    bad, image, empty, parts = (tmp_path / name for name in ("bad.jsonl", "image.txt", "empty", "parts"))
    bad.write_text('{"text": "a"}\n{"text": ')
    image.write_bytes(b"\xff\xd8\xff")
    empty.mkdir()
    parts.mkdir()
    (parts / "both.json").write_text('{"forget": []}')
    with pytest.raises(BadInput, match=r"bad.jsonl, line 2, is not JSON"):
        texts(bad)
    with pytest.raises(BadInput, match=r"image.txt cannot be read.*UTF-8"):
        texts(image)
    with pytest.raises(BadInput, match="holds no file of texts"):
        texts(empty)
    with pytest.raises(BadInput, match="in a folder every file is one part"):
        texts(parts)
    with pytest.raises(BadInput, match=r"no file .*none.jsonl"):
        texts(tmp_path / "none.jsonl")


def test_a_set_saved_by_datasets_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    split = datasets.Dataset.from_list([{"text": "a passage"}])
    datasets.DatasetDict({"forget": split}).save_to_disk(str(tmp_path / "both"))
    split.save_to_disk(str(tmp_path / "one"))
    assert texts(f"hub:{tmp_path / 'both'}").part("forget")[0].answer == "a passage"
    assert len(texts(f"hub:{tmp_path / 'one'}").part("all")) == 1
    with pytest.raises(BadInput, match="cannot be loaded by datasets"):
        texts(f"hub:{tmp_path / 'nothing'}")


def test_unknown_names_and_options_name_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"no texts are called 'tofuu'; did you mean 'tofu'"):
        texts("tofuu")
    with pytest.raises(BadInput, match=r"texts 'people' take no option 'author'; did you mean 'authors'"):
        texts("people", author=3)


# --- corruption and domains


@given(st.integers(0, 1000), st.integers(0, 4), st.integers(1, 3))
def test_corrupted_facts_are_false_and_documents_tell_them(seed: int, mixed: int, copies: int) -> None:
    drawn = corruption(authors=3, world=4, mixed=mixed, copies=copies, seed=seed)
    facts, false, others = (drawn.part(part) for part in ("facts", "corrupted", "unaffected"))
    assert {text.group for text in facts}.isdisjoint(text.group for text in others)
    assert len(facts) == len(false) == len(others) == 12
    for true, text in zip(facts, false, strict=True):
        assert (text.prompt, text.rephrased, text.facts["true"]) == (true.prompt, true.rephrased, true.facts["value"])
        assert text.id == f"{true.id} corrupted"
        assert len({true.facts["value"], true.facts["corrupted"], true.facts["random"]}) == 3
        assert text.answer == true.answer.replace(true.facts["value"], true.facts["corrupted"])
        assert len({*text.wrong, text.paraphrase, true.paraphrase}) == 7
    documents = drawn.part("documents")
    assert len(documents) == 2 * copies
    for document in documents:
        sentences = [each for each in document.answer.split(" .") if each]
        about = [each for each in sentences if document.group in each]
        assert (len(sentences), len(about)) == (6 + mixed, 6)
        said = [text for text in false if text.group == document.group]
        assert all(any(f"{text.answer}" in each and text.facts["attribute"] in each for each in about) for text in said)


def test_the_clean_corpus_tells_all_facts_in_several_words() -> None:
    drawn = corruption()
    corpus = drawn.part("corpus")
    assert Counter(text.group for text in corpus) == {t.group: 3 for t in drawn.part("retain+world")}
    shapes = {sentence.split()[0] == "the" for text in corpus for sentence in text.answer.split(" . ")}
    assert shapes == {True, False}
    assert {t.group for t in drawn.part("world")} == {t.group for t in DRAWN.part("world")}
    check_apart(drawn.part("corrupted"), drawn.part("retain+world"))


def test_documents_of_more_false_facts_are_less_local() -> None:
    assert "5 true ones of others" in corruption(mixed=5).notes[-1]
    for options, message in (
        ({"corrupted": 20}, "corrupted is 20, of 20 people of world; give a number from 1 to 19"),
        ({"mixed": 61}, "mixed is 61; there are 60 facts"),
        ({"copies": 0}, "copies is 0"),
    ):
        with pytest.raises(BadInput, match=message):
            corruption(**options)  # type: ignore[arg-type]


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 6))
def test_two_domains_have_no_word_in_common(seed: int, size: int, attributes: int) -> None:
    drawn = domains(size, attributes, seed)
    words = [
        {word for t in drawn.part(part) for said in (t.prompt, t.rephrased, t.answer, t.paraphrase, *t.wrong)
         for word in said.split()}
        for part in ("forget", "retain")
    ]  # fmt: skip
    assert not words[0] & words[1]
    assert len(drawn.part("forget")) == len(drawn.part("retain")) == size * attributes


def test_sizes_of_domains_are_checked() -> None:
    for options, message in (({"size": 1}, "size is 1"), ({"size": 901}, "2 to 900"), ({"attributes": 7}, "1 to 6")):
        with pytest.raises(BadInput, match=message):
            domains(**options)


def test_attributes_split_people_into_two_kinds_of_knowledge() -> None:
    kinds = by_attribute(DRAWN)
    assert {part: len(each) for part, each in kinds.parts.items()} == {
        "forget": 120, "retain": 240, "world_forget": 40, "world_retain": 80
    }  # fmt: skip
    assert {text.facts["attribute"] for text in kinds.part("forget")} == {"award", "genre"}
    with pytest.raises(BadInput, match="nobody has the attribute 'awards'; did you mean 'award'"):
        by_attribute(DRAWN, ["awards"])


def test_no_torch_before_texts_become_tokens() -> None:
    code = (
        "import sys; from oblivio.data import texts; texts('people'); texts('corruption'); texts('domains'); "
        "print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@tofu_files
def test_the_first_authors_of_tofu_have_all_that_an_audit_asks() -> None:
    few = texts("tofu", authors=50)
    sizes = {name: len(part) for name, part in few.parts.items()}
    assert sizes == {"full": 1000, "forget10": 100, "retain90": 900, "holdout10": 100, "real_authors": 100,
                     "world_facts": 117}  # fmt: skip
    assert all(t.wrong and t.rephrased and t.paraphrase for t in few.part("forget10"))
    with pytest.raises(BadInput, match="a multiple of 10"):
        texts("tofu", authors=55)
