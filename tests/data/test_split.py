"""Hold-out, duplicates and contamination."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from weightgate.data.records import Conversation, Document, Message, Preference
from weightgate.data.split import contamination, content_digest, deduplicate, is_holdout, split_digest, user_texts


def document(text: str, where: str = "t:1") -> Document:
    return Document(text=text, domain="t", where=where)


def conversation(*texts: str) -> Conversation:
    roles = ["user", "assistant"] * len(texts)
    messages = tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=False))
    return Conversation(messages=messages, domain="t", where="t:1")


def preference(prompt: str, chosen: str) -> Preference:
    return Preference(
        prompt=(Message(role="user", content=prompt),),
        chosen=chosen,
        rejected="r",
        annotator=None,
        timestamp=None,
        source=None,
        domain="t",
        where="t:1",
    )


@hypothesis_settings(deadline=None)
@given(st.lists(st.text(), max_size=50), st.floats(0, 1))
def test_the_split_is_disjoint_and_blind_to_order(texts: list[str], share: float) -> None:
    sides = {text: is_holdout(content_digest([text]), share) for text in texts}
    assert {text: is_holdout(content_digest([text]), share) for text in reversed(texts)} == sides
    assert not any(is_holdout(content_digest([text]), 0.0) for text in texts)
    # A larger share keeps out everything that a smaller one does.
    assert all(is_holdout(content_digest([text]), min(1.0, share + 0.1)) for text, out in sides.items() if out)


def test_the_share_is_met() -> None:
    held_out = sum(is_holdout(content_digest([str(i)]), 0.1) for i in range(10_000))
    assert abs(held_out - 1000) < 150  # five standard deviations


def test_one_prompt_never_stands_on_both_sides() -> None:
    assert split_digest(conversation("p", "a")) == split_digest(conversation("p", "b", "more", "c"))
    assert split_digest(preference("p", "a")) == split_digest(preference("p", "b"))
    assert split_digest(preference("p", "a")) == split_digest(conversation("p", "z"))
    assert split_digest(conversation("p", "a")) != split_digest(conversation("q", "a"))


def test_duplicates_are_counted_and_white_space_does_not_matter() -> None:
    counts: Counter[str] = Counter()
    texts = ["caf\u00e9 au  lait", "cafe\u0301 au lait\n", "other"]
    assert list(deduplicate(texts, lambda text: content_digest([text]), counts)) == [texts[0], texts[2]]
    assert counts == {"duplicates_removed": 1}


def test_parts_do_not_run_together() -> None:
    assert content_digest(["ab", "c"]) != content_digest(["a", "bc"])


def test_contamination_tells_exact_prompts_from_overlap() -> None:
    prompts = ["What is the capital of France?", "Never seen before"]
    records = [
        document("I asked: what is the capital of france, please", "a:1"),
        document("what is the CAPITAL of  France", "a:2"),
        document("What is the capital of Spain?", "a:3"),
        document("what is the capital of France?", "a:4"),
    ]
    hits = {(hit.where, hit.kind) for hit in contamination(prompts, records)}
    assert hits == {("a:1", "overlap"), ("a:2", "exact")}


def test_a_prompt_inside_a_longer_one_is_contained_unless_it_is_short() -> None:
    words = [f"w{i}" for i in range(30)]
    for prompt in (" ".join(words), " ".join(words[:8])):
        kinds = {hit.kind for hit in contamination([prompt], [document(f"Please answer: {prompt}? Thanks.")])}
        assert "contained" in kinds
    assert contamination([" ".join(words[:7])], [document("x " + " ".join(words))])[0].kind == "overlap"


def test_thirteen_words_in_a_row_are_an_overlap_and_twelve_are_not() -> None:
    words = [f"w{i}" for i in range(30)]
    prompt = " ".join(words)
    assert contamination([prompt], [document("x " + " ".join(words[5:18]) + " y")])[0].kind == "overlap"
    assert contamination([prompt], [document("x " + " ".join(words[5:17]) + " y")]) == []


def test_user_texts_leave_the_answers_out() -> None:
    texts = [text.text for text in user_texts([conversation("p", "a", "q", "b"), preference("r", "c")])]
    assert texts == ["p", "q", "r"]
