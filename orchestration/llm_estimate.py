"""What the LLM calls of a plan will cost, said before any is made: calls, tokens, USD.

For each asset that asks an LLM, calls are counted per prompt by the function beside the code that
makes them (call_counts.py of each room): the most there can be, times the share of it that was
taken elsewhere (call_shares.py); before there are any, what is usual. They are weighed with a
call's tokens (token_counts.py; evidence that is not there yet is stood in for).
Where what an asset reads is in the lake and stays as it is, the requests of detection, and of
labels that are not reranked, are built as they are and those that the cache answers left out
(real_requests.py): for up to 50 partitions of an asset; of more, 50 that are drawn tell what share
of the most is to be sent. The judge's questions and reranked labels count as if the cache knew
none. Of a retry, only the failed calls count. Repairs of JSON, and calls sent again after an error,
are not foreseen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias

from assets.detection.call_counts import probe_call_counts
from assets.labels import score_prompts
from assets.labels.call_counts import label_call_counts
from assets.labels.config import LlmConfig, LlmRole
from assets.labels.prompt import Prompt, prompt_versions
from assets.labels.tables import LLM_CALLS
from assets.recipe import partition_text
from assets.shared.call_count import ALL_DIFFERENT, EMBEDDED_LABELS
from assets.shared.chat import ChatRequest
from assets.steering.call_counts import judge_call_counts
from assets.steering.judge_prompt import JudgePrompt
from assets.steering.prompts import CONCEPT_PROMPT, FLUENCY_PROMPT
from orchestration.call_shares import CallShares, Count
from orchestration.planning import Planned
from orchestration.real_requests import READ, RealRequests
from orchestration.recipes import RECIPES, specs_of
from orchestration.stand_in_evidence import (
    documents_of,
    stand_in_passage,
    stand_in_values,
    words_per_context,
)
from resources.lake import Lake
from resources.llm_cache import answer_times
from resources.study import FitSpec, Study
from resources.token_counts import TokenCounter, Tokens

ASKING = ("labels", "detection", "steering")
JUDGING = {*prompt_versions(score_prompts), CONCEPT_PROMPT.name, FLUENCY_PROMPT.name}
TABLES_OF = {recipe.name: recipe.tables for recipe in RECIPES}

# An example of the calls, an answer of likely length, and how many calls there will be.
Counted: TypeAlias = tuple[ChatRequest, str, float]


class LlmEstimator:
    """Estimates for one study over one lake; `address` is the LLM's, "" for the client's own."""

    def __init__(self, study: Study, lake: Lake, address: str) -> None:
        self.study = study
        self._lake = lake
        self._real = RealRequests(study, lake, address)
        self._specs = {
            partition_text(spec): spec for spec in specs_of(study) if isinstance(spec, FitSpec)
        }
        self._tokens: dict[tuple[str, ...], Tokens] = {}
        self._examples: dict[str, tuple[ChatRequest, str]] = {}

    def with_costs(self, planned: Sequence[Planned]) -> list[Planned]:
        """The plan with llm_calls, prompt_tokens, completion_tokens and usd of those that ask."""
        clean = {(one.asset, one.partition) for one in planned if not one.is_dirty}
        self._shares = CallShares(self.study, self._lake, list(self._specs.values()), clean)
        self._ready: dict[str, dict[str, FitSpec]] = {}
        self._built: dict[str, dict[str, list[ChatRequest]]] = {}
        for asset in READ:
            if ready := self._partitions_to_build(asset, planned):
                self._ready[asset] = ready
                self._built[asset] = self._real.to_send(asset, list(ready.values()))
        self._share_to_send = {asset: self._share_of_built(asset) for asset in self._built}
        costed: list[Planned] = []
        for one in planned:
            spec = self._specs.get(one.partition)
            costs: Mapping[str, float | None] = {"prompt_tokens": 0, "completion_tokens": 0}
            if _is_to_ask(one) and spec is not None:
                costs = self._costs(self._counted(one, spec))
            costed.append(replace(one, costs={**one.costs, **costs}))
        return costed

    def _partitions_to_build(self, asset: str, planned: Sequence[Planned]) -> dict[str, FitSpec]:
        """Partitions whose requests can be built: all that the asset reads stays as it is.

        So do labels that are only scored anew: the cache knows all answers that they are made of.
        """
        changing: set[tuple[str, str]] = set()
        found: dict[str, FitSpec] = {}
        for one in planned:
            if not one.is_dirty:
                continue
            spec = self._specs.get(one.partition)
            if one.asset == asset:
                stays = all((table.name, one.partition) not in changing for table in READ[asset])
                is_asked = _is_to_ask(one) and not _is_retry(one)
                if spec and stays and is_asked and self._real.can_build(asset, spec):
                    found[one.partition] = spec
            elif self._built.get(one.asset, {}).get(one.partition) != []:
                changing |= {(table.name, one.partition) for table in TABLES_OF.get(one.asset, ())}
        return found

    def _share_of_built(self, asset: str) -> dict[str, float]:
        """Prompt name → calls to send for those that were built, by the most there could be."""
        built = self._built[asset]
        sent = Counter(one.prompt_name for requests in built.values() for one in requests)
        specs = [self._specs[name] for name in built]
        most = self._shares.most(asset, specs, self._counts(asset))
        return {
            name: sent[name] / most[name] if most[name] else 0.0
            for name in self._real.prompt_names(asset)
        }

    def _costs(self, counted: Sequence[Counted] | None) -> dict[str, float | None]:
        if counted is None:
            return dict.fromkeys(("llm_calls", "prompt_tokens", "completion_tokens", "usd"))
        calls: list[tuple[LlmRole, Tokens]] = [
            (_role_of(request.prompt_name), self._tokens_of(request, answer).times(n))
            for request, answer, n in counted
        ]
        prices = [_usd(self.study.llm_of(role), tokens) for role, tokens in calls]
        known = [usd for usd in prices if usd is not None]
        return {
            "llm_calls": round(sum(n for *_, n in counted)),
            "prompt_tokens": round(sum(tokens.prompt for _, tokens in calls)),
            "completion_tokens": round(sum(tokens.completion for _, tokens in calls)),
            "usd": sum(known) if len(known) == len(prices) else None,
        }

    @cached_property
    def _counters(self) -> Mapping[LlmRole, TokenCounter]:
        roles: tuple[LlmRole, ...] = ("llm", "judge_llm")
        return {role: TokenCounter(self.study.llm_of(role), self._lake) for role in roles}

    @cached_property
    def _documents(self) -> list[str]:
        return documents_of(self.study, self._lake)

    @cached_property
    def _values(self) -> dict[str, str]:
        return stand_in_values(self.study, self._documents)

    def _tokens_of(self, request: ChatRequest, answer: str) -> Tokens:
        prompt = (request.prompt_name, request.prompt_version, str(request.max_tokens))
        key = (*prompt, answer, *(one["content"] for one in request.messages))
        if key not in self._tokens:
            counter = self._counters[_role_of(request.prompt_name)]
            self._tokens[key] = counter.of_prompt(request, answer)
        return self._tokens[key]

    def _counts(self, asset: str) -> Count[Any]:
        """The function that says how often each prompt is asked for so many features."""
        study = self.study
        labels = EMBEDDED_LABELS if study.llm_of("llm").is_embedded else ALL_DIFFERENT
        if asset == "labels":
            llms = (study.llm_of("llm"), study.llm_of("judge_llm"))
            n_words = words_per_context(study, self._documents)
            return lambda n: label_call_counts(
                n, study.labels, study.evidence, *llms, words_per_context=n_words, labels=labels
            )
        if asset == "detection":
            return lambda n: probe_call_counts(n, study.detection, labels=labels)
        return lambda n: judge_call_counts(n, study.steering, labels=labels)

    def _counted(self, one: Planned, spec: FitSpec) -> list[Counted] | None:
        """The calls of one asset partition; None where the number of features is not known."""
        if _is_retry(one):
            return self._failed_before(one.asset, spec)
        n_features = self._shares.n_taken_up(one.asset, spec)
        if n_features is None:
            return None
        count = self._counts(one.asset)
        if one.partition not in self._ready.get(one.asset, ()):
            expected = self._shares.as_elsewhere(one.asset, spec, count, n_features)
            return [(*self._example(prompt), n) for prompt, n in expected.values()]
        names = self._real.prompt_names(one.asset)
        # Labels' scores, which ask about labels that are not there yet.
        others = self._shares.as_elsewhere(one.asset, spec, count, n_features)
        found = [(*self._example(p), n) for name, (p, n) in others.items() if name not in names]
        if one.partition in self._built[one.asset]:
            return [(r, _answer_of(r), 1) for r in self._built[one.asset][one.partition]] + found
        share = self._share_to_send[one.asset]
        return found + [
            (*self._example(each.prompt), each.most * share[name])
            for name, each in count(n_features).items()
            if name in names
        ]

    def _example(self, prompt: Prompt | JudgePrompt) -> tuple[ChatRequest, str]:
        """A call of a prompt, filled with texts of likely length, and its answer."""
        if prompt.name not in self._examples:
            if isinstance(prompt, JudgePrompt):
                passage = stand_in_passage(self.study, self._documents)
                judge = self.study.steering.judge
                request = prompt.request(self._values["label"], passage, judge)
            else:
                request = prompt.request(self._values, seed=0)
            self._examples[prompt.name] = (request, _answer_of(request))
        return self._examples[prompt.name]

    def _failed_before(self, stage: str, spec: FitSpec) -> list[Counted]:
        """The calls of the last time that got no answer."""
        rows = self._failed.get((stage, *spec.partition.values()), [])
        found: list[Counted] = []
        for row in {row["request_hash"]: row for row in reversed(rows)}.values():
            if row["request_hash"] not in self._answered:
                messages = tuple(json.loads(row["prompt"]))
                request = ChatRequest(row["prompt_name"], row["prompt_version"], messages)
                found.append((request, _answer_of(request), 1))
        return found

    @cached_property
    def _failed(self) -> Mapping[tuple[str, ...], list[Mapping[str, str]]]:
        """(stage, site, fit) → its calls that failed."""
        rows = self._lake.query(
            "SELECT stage, site, fit, request_hash, prompt_name, prompt_version, prompt "
            f"FROM {LLM_CALLS.name} WHERE status = 'failed' ORDER BY call_index"
        )
        found: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
        for row in rows.to_dicts():
            found.setdefault((row["stage"], row["site"], row["fit"]), []).append(row)
        return found

    @cached_property
    def _answered(self) -> Mapping[str, str]:
        """Failed calls that were answered since."""
        hashes = {row["request_hash"] for rows in self._failed.values() for row in rows}
        return answer_times(self._lake.llm_cache_folder, hashes)


def _role_of(prompt_name: str) -> LlmRole:
    return "judge_llm" if prompt_name in JUDGING else "llm"


def _usd(llm: LlmConfig, tokens: Tokens) -> float | None:
    """Price of a number of tokens; None where it is not known."""
    if llm.is_embedded:
        return 0.0
    prices = (llm.usd_per_million_prompt_tokens, llm.usd_per_million_completion_tokens)
    if prices[0] is None or prices[1] is None:
        return None
    factor = llm.batch_price_factor if llm.batch else 1.0
    return factor * (tokens.prompt * prices[0] + tokens.completion * prices[1]) / 1e6


def _is_to_ask(one: Planned) -> bool:
    return one.asset in ASKING and one.decision in ("compute", "maybe")


def _is_retry(one: Planned) -> bool:
    """Whether nothing changed, and only what failed is asked again."""
    before = one.before
    return before is not None and before.wants_retry and before.fingerprint == one.fingerprint


def _answer_of(request: ChatRequest) -> str:
    """An answer of likely length: the middle one of the prompt's examples."""
    answers = sorted((m["content"] for m in request.messages if m["role"] == "assistant"), key=len)
    return answers[len(answers) // 2] if answers else ""
