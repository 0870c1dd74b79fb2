"""From evidence to label requests, and from replies to rows."""

from __future__ import annotations

import json

import polars as pl
import pytest

from assets.labels.config import LabelsConfig, LlmConfig
from assets.labels.label_tasks import LabelTask, label_requests, label_rows, requests_of
from assets.labels.prompt import Prompt
from assets.labels.tables import LABELS
from assets.shared.chat import ChatReply, ChatRequest

EMBEDDED, REMOTE = LlmConfig(), LlmConfig(model="some-model")
# Asked once a label; candidates are tested in test_label_candidates.py.
CONFIG = LabelsConfig(rerank="none")
PARTITION = {"site": "demo:m@L01.mlp_hidden", "fit": "snmf-k064"}


def context(
    feature_id: int, kind: str, rank: int, word: str, before: str = "it was", after: str = "again"
) -> dict[str, object]:
    return {
        "feature_id": feature_id,
        "kind": kind,
        "rank_in_kind": rank,
        "document_id": f"d{feature_id}-{kind}-{rank}",
        "peak_token": word,
        "text": f"{before} {word} {after}",
        "marked_text": f"{before} «{word}» {after}",
    }


CONTEXTS = pl.DataFrame(
    [
        context(0, "top", 1, "Friday"),
        context(0, "top", 0, "friday"),
        context(0, "sampled", 0, "clock"),
        context(0, "sampled", 1, "Friday"),
        context(0, "held_out", 0, "SECRET"),
        context(0, "negative", 0, "SECRET"),
        context(0, "hard_negative", 0, "SECRET"),
        context(0, "near_miss", 1, "lunch"),
        context(0, "near_miss", 0, "noon"),
        context(1, "top", 0, "bride"),
        context(1, "top", 1, "groom"),
    ]
)
VOCABULARY = pl.DataFrame(
    [
        (feature_id, sign, rank, token)
        for feature_id in (0, 1)
        for sign, tokens in (
            ("+", [" Fri", "fri", " day", "\n", " week"]),
            ("-", ["zip", " Zip code"]),
        )
        for rank, token in enumerate(tokens)
    ],
    schema=["feature_id", "sign", "rank_in_sign", "token"],
    orient="row",
)


def tasks_for(
    llm: LlmConfig, features: list[int], config: LabelsConfig | None = None
) -> list[LabelTask]:
    return label_requests(CONTEXTS, VOCABULARY, config or CONFIG, features=features, llm=llm)


def reply(request: ChatRequest, text: str | None, reason: str | None = None) -> ChatReply:
    status = "failed" if reason else "ok"
    return ChatReply(request, request.request_hash("m"), "m", status, text=text, reason=reason)


def asked(task: LabelTask) -> str:
    (request,) = task.requests
    return request.messages[-1]["content"]


def test_a_small_llm_sees_the_telling_words_only() -> None:
    friday, output, minus, combined, bride, _, _, both = tasks_for(EMBEDDED, [0, 1])
    # The odd word beside a repeated one is left out; unrepeated ones are all shown.
    assert asked(friday) == "Words: friday"
    assert asked(bride) == "Words: bride, groom"
    assert (asked(output), asked(minus)) == ("Words: Fri, day, week", "Words: zip, Zip code")
    # As many promoted tokens as telling words.
    assert asked(combined) == "Words: friday, Fri"
    assert asked(both) == "Words: bride, groom, Fri, day"


def test_other_llms_see_marked_contexts_near_misses_and_one_sign_at_a_time() -> None:
    friday, output, minus, combined = tasks_for(REMOTE, [0])
    texts = [
        "Texts:",
        "- it was «friday» again",
        "- it was «clock» again",
        "- it was «Friday» again",
        "- it was «Friday» again",
        "",
        "Not active in:",
        "- it was noon again",
        "- it was lunch again",
        "",
        "Marked words: friday, clock",
    ]
    assert asked(friday).splitlines() == texts
    assert asked(output) == "More likely: Fri, day, week"
    assert asked(minus) == "More likely: zip, Zip code"
    assert output.prompt == minus.prompt
    assert asked(combined).splitlines() == [*texts, "More likely: Fri, day, week"]


def test_without_near_misses_nothing_is_said_of_them() -> None:
    (bride, *_) = tasks_for(REMOTE, [1])
    assert "Not active" not in asked(bride)
    (friday, *_) = tasks_for(REMOTE, [0], CONFIG.model_copy(update={"n_near_misses_shown": 0}))
    assert "Not active" not in asked(friday)
    (friday, *_) = tasks_for(REMOTE, [0], CONFIG.model_copy(update={"n_near_misses_shown": 1}))
    assert "noon" in asked(friday) and "lunch" not in asked(friday)


@pytest.mark.parametrize("llm", [EMBEDDED, REMOTE])
def test_an_output_label_knows_no_token_of_the_other_sign(llm: LlmConfig) -> None:
    """Another list of the other sign leaves the request as it is, to the byte."""
    config = CONFIG.model_copy(update={"kinds": ("output", "output_minus")})

    def hashes(changed: str) -> list[str]:
        token = pl.when(sign=changed).then(pl.lit("other")).otherwise("token")
        tasks = label_requests(
            CONTEXTS, VOCABULARY.with_columns(token=token), config, features=[0], llm=llm
        )
        return [task.requests[0].request_hash("m") for task in tasks]

    (plus, minus), without_plus, without_minus = hashes("?"), hashes("+"), hashes("-")
    assert without_minus[0] == plus and without_plus[1] == minus
    assert without_plus[0] != plus and without_minus[1] != minus
    nothing = VOCABULARY.filter(sign="+")
    tasks = label_requests(CONTEXTS, nothing, config, features=[0], llm=llm)
    assert [bool(task.requests) for task in tasks] == [True, False]
    assert "vocabulary" in str(tasks[1].reason)


@pytest.mark.parametrize("llm", [EMBEDDED, REMOTE])
def test_contexts_kept_back_are_never_shown(llm: LlmConfig) -> None:
    requests = requests_of(tasks_for(llm, [0, 1]))
    shown = json.dumps([request.messages for request in requests])
    assert "Friday" in shown or "friday" in shown
    assert "SECRET" not in shown


def test_long_contexts_are_cut_around_the_peak() -> None:
    before, after = (" ".join(f"{side}{i}" for i in range(50)) for side in ("b", "a"))
    contexts = pl.DataFrame([context(3, "top", 0, "peak", before, after)])
    config = LabelsConfig(max_context_words=6, rerank="none")
    task = label_requests(contexts, VOCABULARY, config, features=[3], llm=REMOTE)[0]
    assert "- b47 b48 b49 «peak» a0 a1\n" in asked(task)


def test_every_feature_and_kind_gets_a_row_that_fits_the_table() -> None:
    config = LabelsConfig(max_features=3, kinds=("input", "output"), rerank="none")
    tasks = tasks_for(EMBEDDED, [1, 0, 2], config)
    requests = requests_of(tasks)
    assert [(t.feature_id, t.kind) for t in tasks if not t.requests] == [
        (2, "input"),
        (2, "output"),
    ]
    replies = [
        reply(requests[0], '{"label": " \\"Weddings.\\" "}'),
        reply(requests[1], '{"label": "TRASH"}'),
        reply(requests[2], None, "endpoint down"),
        reply(requests[3], '{"label": "weekdays"}'),
    ]
    rows = label_rows(tasks, replies, CONTEXTS, config, all_features=[0, 1, 2, 3], beyond="why")
    LABELS.conform(rows, PARTITION)
    found = {(r["feature_id"], r["kind"]): r for r in rows.iter_rows(named=True)}
    assert len(found) == 4 * 3
    assert found[1, "input"]["label"] == "Weddings" and found[1, "input"]["status"] == "ok"
    assert found[1, "input"]["prompt_version"] == requests[0].prompt_version
    assert (found[1, "output"]["label"], found[1, "output"]["status"]) == (None, "none")
    assert found[0, "input"]["status"] == "failed"
    assert found[0, "input"]["reason"] == "endpoint down"
    assert found[0, "output"]["label"] == "weekdays"
    assert found[2, "input"]["status"] == "none" and found[2, "input"]["request_hash"] is None
    assert found[3, "input"]["status"] == "not_attempted"
    assert found[3, "input"]["reason"] == "why"
    assert found[0, "token_summary"]["label"] == "friday, clock"
    assert found[1, "token_summary"]["label"] == "bride, groom"
    assert found[2, "token_summary"]["status"] == "none"
    assert found[0, "output"]["n_candidates"] == 1 and found[1, "output"]["n_candidates"] == 0
    assert rows["pmi_nats"].null_count() == rows["candidates"].null_count() == len(rows)
    assert rows.filter(pl.col("status") == "ok")["label"].null_count() == 0
    assert rows.filter(pl.col("status") != "ok")["reason"].null_count() == 0


def test_replies_that_do_not_belong_to_the_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="4 requests but 0 replies"):
        label_rows(
            tasks_for(EMBEDDED, [0]),
            [],
            CONTEXTS,
            LabelsConfig(),
            all_features=[0],
            beyond="none is",
        )


def test_a_combined_label_needs_evidence_of_both_sides() -> None:
    config = CONFIG.model_copy(update={"kinds": ("combined",)})
    for llm in (EMBEDDED, REMOTE):
        (no_contexts,) = label_requests(CONTEXTS.clear(), VOCABULARY, config, features=[0], llm=llm)
        assert not no_contexts.requests and "does not fire" in str(no_contexts.reason)
        (no_tokens,) = label_requests(CONTEXTS, VOCABULARY.clear(), config, features=[0], llm=llm)
        assert not no_tokens.requests and "vocabulary" in str(no_tokens.reason)


def test_a_prompt_edit_changes_its_version() -> None:
    prompt = Prompt("p", "system", "Words: {w}", (({"w": "a"}, "b"),))
    edits = [
        Prompt("p", "system!", "Words: {w}", (({"w": "a"}, "b"),)),
        Prompt("p", "system", "Word: {w}", (({"w": "a"}, "b"),)),
        Prompt("p", "system", "Words: {w}", (({"w": "a"}, "c"),)),
        Prompt("p", "system", "Words: {w}", (({"w": "a"}, "b"),), max_tokens=3),
    ]
    assert len({prompt.version, *(edit.version for edit in edits)}) == 5
    assert Prompt("other", "system", "Words: {w}", (({"w": "a"}, "b"),)).version == prompt.version
    assert prompt.request({"w": "x"}, seed=3).messages[-1]["content"] == "Words: x"
