"""What the LLM calls of a plan will cost, said before any is made: calls, tokens, USD.

For each asset that asks an LLM, calls are counted per prompt by the function beside the code that
makes them (call_counts.py of each room): the most there can be, times the share of it that was
taken by the same fit at other layers of the study, or by other fits, where those stay as they are;
before there are any, what is usual. They are weighed with a call's tokens (token_counts.py;
evidence that is not there yet is stood in for).
Where what an asset reads is in the lake and stays as it is, the requests of detection, and of
labels that are not reranked, are built as they are and those that the cache answers left out; the
judge's questions and reranked labels count as if the cache knew none. Of a retry, only the failed
calls count. Repairs of JSON, and calls sent again after an error, are not foreseen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

from assets.detection.call_counts import probe_call_counts
from assets.detection.probe_sentences import probe_requests
from assets.evidence.tables import CONTEXTS, VOCAB_PROJECTION
from assets.factorization.strength_order import feature_limit, strongest_features
from assets.factorization.tables import COEFFICIENTS, FACTORIZATIONS
from assets.labels.call_counts import label_call_counts
from assets.labels.chosen_labels import chosen_labels
from assets.labels.label_tasks import label_requests, requests_of
from assets.labels.prompt import Prompt
from assets.labels.tables import LABELS, LLM_CALLS
from assets.recipe import partition_text
from assets.shared.call_count import CallCount
from assets.shared.chat import ChatRequest
from assets.steering.call_counts import judge_call_counts
from assets.steering.prompts import JudgePrompt
from orchestration.planning import Planned
from orchestration.recipes import RECIPES, specs_of
from orchestration.stand_in_evidence import documents_of, stand_in_passage, stand_in_values
from resources.chat_replies import hashed_name
from resources.lake import Lake
from resources.llm_cache import answer_times
from resources.study import FitSpec, Study
from resources.token_counts import TokenCounter, Tokens

ASKING = ("labels", "detection", "steering")

# An example of the calls, an answer of likely length, and how many calls there will be.
Counted: TypeAlias = tuple[ChatRequest, str, float]
P = TypeVar("P", Prompt, JudgePrompt)


class LlmEstimator:
    """Estimates for one study over one lake; `address` is the LLM's, "" for the client's own."""

    def __init__(self, study: Study, lake: Lake, address: str) -> None:
        self.study = study
        self._lake = lake
        self._asked = hashed_name(study.llm, address)
        self._specs = {
            partition_text(spec): spec for spec in specs_of(study) if isinstance(spec, FitSpec)
        }
        self._tables = lake.table_names()
        self._clean: set[tuple[str, str]] = set()

    def with_costs(self, planned: Sequence[Planned]) -> list[Planned]:
        """The plan with llm_calls, prompt_tokens, completion_tokens and usd of those that ask."""
        pending: set[tuple[str, str]] = set()
        tables_of = {recipe.name: [table.name for table in recipe.tables] for recipe in RECIPES}
        self._clean = {(one.asset, one.partition) for one in planned if not one.is_dirty}
        costed: list[Planned] = []
        for one in planned:
            if one.is_dirty:
                pending |= {(name, one.partition) for name in tables_of.get(one.asset, ())}
            is_to_ask = one.asset in ASKING and one.decision in ("compute", "maybe")
            spec = self._specs.get(one.partition)
            costs: Mapping[str, float | None] = {"prompt_tokens": 0, "completion_tokens": 0}
            if is_to_ask and spec is not None:
                costs = self._costs(self._counted(one, spec, pending))
            costed.append(replace(one, costs={**one.costs, **costs}))
        return costed

    def _costs(self, counted: Sequence[Counted] | None) -> dict[str, float | None]:
        if counted is None:
            return dict.fromkeys(("llm_calls", "prompt_tokens", "completion_tokens", "usd"))
        tokens = [
            self._counter.of_prompt(request, answer).times(n) for request, answer, n in counted
        ]
        prompt = sum(one.prompt for one in tokens)
        completion = sum(one.completion for one in tokens)
        return {
            "llm_calls": round(sum(n for *_, n in counted)),
            "prompt_tokens": round(prompt),
            "completion_tokens": round(completion),
            "usd": self._usd(Tokens(prompt, completion)),
        }

    def _usd(self, tokens: Tokens) -> float | None:
        llm = self.study.llm
        if llm.is_embedded:
            return 0.0
        prices = (llm.usd_per_million_prompt_tokens, llm.usd_per_million_completion_tokens)
        if prices[0] is None or prices[1] is None:
            return None
        factor = llm.batch_price_factor if llm.batch else 1.0
        return factor * (tokens.prompt * prices[0] + tokens.completion * prices[1]) / 1e6

    @cached_property
    def _counter(self) -> TokenCounter:
        return TokenCounter(self.study.llm, self._lake)

    @cached_property
    def _documents(self) -> list[str]:
        return documents_of(self.study, self._lake)

    @cached_property
    def _values(self) -> dict[str, str]:
        return stand_in_values(self.study, self._documents)

    def _counted(
        self, one: Planned, spec: FitSpec, pending: set[tuple[str, str]]
    ) -> list[Counted] | None:
        """The calls of one asset partition; None where the number of features is not known."""
        before = one.before
        if before is not None and before.wants_retry and before.fingerprint == one.fingerprint:
            return self._failed_before(one.asset, spec)
        n_features = self._n_taken_up(one.asset, spec)
        if n_features is None:
            return None
        if one.asset == "labels":
            return self._of_labels(spec, n_features, pending)
        if one.asset == "detection":
            return self._of_detection(spec, n_features, pending)
        passage = stand_in_passage(self.study, self._documents)
        counts = self._as_elsewhere(
            "steering", spec, lambda n: judge_call_counts(n, self.study.steering), n_features
        )
        return [
            (request, _answer_of(request), n)
            for prompt, n in counts.values()
            for request in [
                prompt.request(self._values["label"], passage, self.study.steering.judge)
            ]
        ]

    def _of_labels(
        self, spec: FitSpec, n_features: int, pending: set[tuple[str, str]]
    ) -> list[Counted]:
        config, llm = self.study.labels, self.study.llm
        counts = self._as_elsewhere(
            "labels",
            spec,
            lambda n: label_call_counts(n, config, self.study.evidence, llm),
            n_features,
        )
        stand_ins = self._of_prompts(counts)
        read = (CONTEXTS, VOCAB_PROJECTION, COEFFICIENTS)
        if not self._are_there(read, spec, pending) or config.is_reranked_for(llm):
            return stand_ins
        coefficients = self._lake.read(
            COEFFICIENTS, spec.partition, columns=("feature_id", "coefficient")
        )
        tasks = label_requests(
            self._lake.read(CONTEXTS, spec.partition),
            self._lake.read(VOCAB_PROJECTION, spec.partition),
            config,
            features=strongest_features(coefficients, self._limit(spec, config)),
            llm=llm,
        )
        real = requests_of(tasks)
        names = {task.prompt.name for task in tasks}
        scores = [one for one in stand_ins if one[0].prompt_name not in names]
        return self._to_send(real) + scores

    def _of_detection(
        self, spec: FitSpec, n_features: int, pending: set[tuple[str, str]]
    ) -> list[Counted]:
        config = self.study.detection
        if not self._are_there((LABELS,), spec, pending):
            counts = self._as_elsewhere(
                "detection", spec, lambda n: probe_call_counts(n, config), n_features
            )
            return self._of_prompts(counts)
        chosen = chosen_labels(self._lake.read(LABELS, spec.partition))
        labelled = [(i, c.label) for i, c in chosen.items() if c.label is not None]
        tasks = probe_requests(dict(labelled[: self._limit(spec, config)]), config)
        return self._to_send(task.request for task in tasks)

    def _as_elsewhere(
        self,
        stage: str,
        spec: FitSpec,
        count: Callable[[int], Mapping[str, CallCount[P]]],
        n_features: int,
    ) -> dict[str, tuple[P, float]]:
        """The most of `count(n_features)`, at the share that clean fits of the study took of it.

        Those are the same fit at other sites where it is clean there, else all clean fits: labels
        without a theme, and contexts that are missing, spare calls. Without any, the usual number.
        """
        counts = count(n_features)
        clean = [one for name, one in self._specs.items() if (stage, name) in self._clean]
        sisters = [one for one in clean if one.fit.key == spec.fit.key] or clean
        if not sisters or LLM_CALLS.name not in self._tables:
            return {name: (one.prompt, one.usual) for name, one in counts.items()}
        made, most = Counter[str](), Counter[str]()
        for one in sisters:
            calls = self._lake.read(
                LLM_CALLS,
                {**one.partition, "stage": stage},
                columns=("prompt_name", "prompt_version", "request_hash"),
            ).unique()
            made.update(calls["prompt_name"].to_list())
            n_taken_up = self._n_taken_up(stage, one) or 0
            most.update({name: each.most for name, each in count(n_taken_up).items()})
        return {
            name: (each.prompt, each.most * made[name] / most[name] if most[name] else each.usual)
            for name, each in counts.items()
        }

    def _n_taken_up(self, stage: str, spec: FitSpec) -> int | None:
        """How many features a stage asks the LLM about; None where that is not known."""
        limits = {"labels": self.study.labels, "detection": self.study.detection}
        of_stage = self._limit(spec, limits.get(stage, self.study.steering))
        return _least(self._n_features(spec, self.study.labels), of_stage)

    def _of_prompts(self, counts: Mapping[str, tuple[Prompt, float]]) -> list[Counted]:
        found: list[Counted] = []
        for prompt, n in counts.values():
            request = prompt.request(self._values, seed=0)
            found.append((request, _answer_of(request), n))
        return found

    def _to_send(self, requests: Iterable[ChatRequest]) -> list[Counted]:
        """Real requests, each once, that the cache does not know."""
        by_hash = {request.request_hash(self._asked): request for request in requests}
        known = answer_times(self._lake.llm_cache_folder, by_hash)
        return [(r, _answer_of(r), 1) for h, r in by_hash.items() if h not in known]

    def _failed_before(self, stage: str, spec: FitSpec) -> list[Counted]:
        """The calls of the last time that got no answer."""
        calls = self._lake.read(LLM_CALLS, {**spec.partition, "stage": stage, "status": "failed"})
        known = answer_times(self._lake.llm_cache_folder, calls["request_hash"].to_list())
        found: list[Counted] = []
        for row in calls.unique("request_hash", maintain_order=True).to_dicts():
            if row["request_hash"] not in known:
                messages = tuple(json.loads(row["prompt"]))
                request = ChatRequest(row["prompt_name"], row["prompt_version"], messages)
                found.append((request, _answer_of(request), 1))
        return found

    def _n_features(self, spec: FitSpec, limits: Any) -> int | None:
        """How many features a stage takes up; None where neither limit nor rank is known."""
        rank: Any = spec.fit.rank
        if FACTORIZATIONS.name in self._tables:
            rows = self._lake.read(FACTORIZATIONS, spec.partition, columns=("rank",))
            rank = rows["rank"][0] if len(rows) else rank
        return _least(rank if isinstance(rank, int) else None, self._limit(spec, limits))

    def _limit(self, spec: FitSpec, limits: Any) -> int | None:
        return feature_limit("", limits, spec.fit.is_control).n

    def _are_there(
        self, tables: Iterable[Any], spec: FitSpec, pending: set[tuple[str, str]]
    ) -> bool:
        return all(
            table.name in self._tables
            and (table.name, partition_text(spec)) not in pending
            and self._lake.count(table, spec.partition)
            for table in tables
        )


def _least(*values: int | None) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if known else None


def _answer_of(request: ChatRequest) -> str:
    """An answer of likely length: the middle one of the prompt's examples."""
    answers = sorted((m["content"] for m in request.messages if m["role"] == "assistant"), key=len)
    return answers[len(answers) // 2] if answers else ""
