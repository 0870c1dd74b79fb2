"""A few-shot chat prompt as a value, whose version is a hash of everything it says.

Editing the system text, the template, an example, the schema or the limits makes another version
by itself, so rows made by different wordings never look alike. What the prompts of a stage say
stands in that stage's prompts.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from assets.shared.chat import ChatRequest

VERSION_DIGITS = 12


@dataclass(frozen=True)
class Prompt:
    """System text, a template with {fields}, and examples as (field values, answer) turns."""

    name: str
    system: str
    template: str
    examples: tuple[tuple[Mapping[str, str], str], ...] = ()
    json_schema: Mapping[str, Any] | None = None
    max_tokens: int = 64
    temperature: float = 0.0
    top_logprobs: int = 0

    @cached_property
    def version(self) -> str:
        """Hash (12 hex digits) of all that the prompt says and allows."""
        content = [
            self.system,
            self.template,
            [[dict(values), answer] for values, answer in self.examples],
            self.json_schema,
            self.max_tokens,
            self.temperature,
            self.top_logprobs,
        ]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:VERSION_DIGITS]

    def request(
        self,
        values: Mapping[str, str],
        *,
        seed: int,
        temperature: float | None = None,
        max_tokens: int | None = None,
        json_schema: Mapping[str, Any] | None = None,
    ) -> ChatRequest:
        """The call that asks about `values`; sampling and schema may differ from the prompt's."""
        messages = [{"role": "system", "content": self.system}]
        for example, answer in self.examples:
            messages.append({"role": "user", "content": self.template.format(**example)})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": self.template.format(**values)})
        return ChatRequest(
            prompt_name=self.name,
            prompt_version=self.version,
            messages=tuple(messages),
            json_schema=self.json_schema if json_schema is None else json_schema,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            temperature=self.temperature if temperature is None else temperature,
            seed=seed,
            top_logprobs=self.top_logprobs,
        )


def prompt_versions(module: ModuleType) -> dict[str, str]:
    """Name and version of every prompt that a module declares."""
    found = [value for value in vars(module).values() if isinstance(value, Prompt)]
    return {prompt.name: prompt.version for prompt in found}
