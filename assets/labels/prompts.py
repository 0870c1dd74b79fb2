"""What the labeller is asked: labels from words or from contexts. Judges: score_prompts.py.

Two styles. `words` is for LLMs of less than about a billion parameters: only the peak words and
short examples, nothing else. Tried on SmolLM2-135M-Instruct with noisy evidence from the bundled
corpus, two draws of 32 concepts: 21 and 18 labels hit the concept or its parent. Every form with
lines of context hit fewer (11 to 18), and one text instead of chat turns none. `contexts` is for
all others and follows automatic interpretability practice (delphi; the semi-NMF MLP-features
paper): marked contexts, or the tokens that one sign of a feature promotes, with leave to answer
none. Both signs are asked about alike, each by its own tokens alone, as in that paper's code. The
examples' themes are not concepts of the bundled corpus: no label is handed over.
"""

from __future__ import annotations

import json

from assets.labels.prompt import Prompt

LABEL_SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}
# Before the near misses, where there are any.
CONTRAST_HEAD = "\n\nNot active in:\n"
# Evidence of nothing, to ask how probable a label is by itself (label_candidates.py).
NO_EVIDENCE = {
    "words": "",
    "contexts": "",
    "contrast": "",
    "promoted": "",
}


def _label(text: str) -> str:
    return json.dumps({"label": text})


def _contrast(*lines: str) -> str:
    return CONTRAST_HEAD + "\n".join(lines)


_WORDS_SYSTEM = (
    "You are given words. Name the topic that most of them share. Ignore words that do not fit."
)
_WORDS_EXAMPLES = (
    ({"words": "rain, snow, wind, storm, cloudy"}, _label("weather")),
    ({"words": "Venice, gondola, canal"}, _label("Venice")),
    ({"words": "sono, della, che, il, perché, molto"}, _label("Italian language")),
    ({"words": "chair, table, sofa, desk"}, _label("furniture")),
    ({"words": "purple, lilac"}, _label("the colour purple")),
    ({"words": "guitar, piano, violin, concert"}, _label("music")),
    # A small LLM repeats the last example where it sees nothing: that must not be a theme.
    ({"words": "of, seven, lamp, went, upper"}, _label("none")),
)

WORDS_INPUT = Prompt(
    name="label_input_words",
    system=_WORDS_SYSTEM,
    template="Words: {words}",
    examples=_WORDS_EXAMPLES,
    json_schema=LABEL_SCHEMA,
    max_tokens=32,
)
WORDS_OUTPUT = Prompt(
    name="label_output_words",
    system=_WORDS_SYSTEM,
    template="Words: {words}",
    examples=_WORDS_EXAMPLES,
    json_schema=LABEL_SCHEMA,
    max_tokens=32,
)
# What a feature fires on and what it promotes in one list: the same task.
WORDS_COMBINED = Prompt(
    name="label_combined_words",
    system=_WORDS_SYSTEM,
    template="Words: {words}",
    examples=_WORDS_EXAMPLES,
    json_schema=LABEL_SCHEMA,
    max_tokens=32,
)

CONTEXTS_INPUT = Prompt(
    name="label_input_contexts",
    system=(
        "You explain what a feature of a language model detects. You see texts in which it is "
        "active; the word where it is strongest stands between « and ». Name what the marked "
        "words, in their contexts, have in common: one to six words, as specific as the evidence "
        "allows, no sentence. Texts in which it is not active may follow: they are alike, and the "
        "name must not fit them. If the marked words have nothing in common, answer none."
    ),
    template="Texts:\n{contexts}{contrast}\n\nMarked words: {words}",
    examples=(
        (
            {
                "contexts": "- The «rain» kept falling all night\n"
                "- A cold «wind» blew from the sea\n- Heavy «snow» closed the road",
                "contrast": _contrast("- The lake was deep and cold", "- Dark woods by the sea"),
                "words": "rain, wind, snow",
            },
            _label("weather"),
        ),
        (
            {
                "contexts": "- Io «sono» molto stanco oggi\n- La casa «della» nonna è grande\n"
                "- Penso «che» verrà domani",
                "contrast": "",
                "words": "sono, della, che",
            },
            _label("Italian text"),
        ),
    ),
    json_schema=LABEL_SCHEMA,
    max_tokens=48,
)
CONTEXTS_COMBINED = Prompt(
    name="label_combined_contexts",
    system=(
        "You explain what a feature of a language model is about. You see texts in which it is "
        "active, the word where it is strongest between « and », and the tokens that it makes "
        "more likely, of which many may be noise. Name the theme of the marked words in their "
        "contexts and of those tokens; where they disagree, that of the marked words: one to six "
        "words, as specific as the evidence allows, no sentence. Texts in which it is not active "
        "may follow: they are alike, and the name must not fit them. If there is no theme, answer "
        "none."
    ),
    template="Texts:\n{contexts}{contrast}\n\nMarked words: {words}\nMore likely: {promoted}",
    examples=(
        (
            {
                "contexts": "- The «rain» kept falling all night\n"
                "- A cold «wind» blew from the sea\n- Heavy «snow» closed the road",
                "contrast": _contrast("- The lake was deep and cold", "- Dark woods by the sea"),
                "words": "rain, wind, snow",
                "promoted": "storm, uer, clouds, zip, forecast",
            },
            _label("weather"),
        ),
        (
            {
                "contexts": "- Io «sono» molto stanco oggi\n- La casa «della» nonna è grande\n"
                "- Penso «che» verrà domani",
                "contrast": "",
                "words": "sono, della, che",
                "promoted": "88, nel, mor, alla, fact",
            },
            _label("Italian text"),
        ),
    ),
    json_schema=LABEL_SCHEMA,
    max_tokens=48,
)
CONTEXTS_OUTPUT = Prompt(
    name="label_output_contexts",
    system=(
        "You explain what a feature of a language model makes it say. You see the tokens that the "
        "feature makes more likely, strongest first. Many may be noise. Name the theme of these "
        "tokens: one to six words, as specific as possible, no sentence. If they have no theme, "
        "answer none."
    ),
    template="More likely: {promoted}",
    examples=(
        ({"promoted": "rain, snow, wind, storm, umbrella"}, _label("weather")),
        ({"promoted": "uer, Gr, zip, 88, mor, fact"}, _label("none")),
    ),
    json_schema=LABEL_SCHEMA,
    max_tokens=48,
)

LABEL_PROMPTS = {
    ("input", "words"): WORDS_INPUT,
    ("output", "words"): WORDS_OUTPUT,
    ("output_minus", "words"): WORDS_OUTPUT,
    ("combined", "words"): WORDS_COMBINED,
    ("input", "contexts"): CONTEXTS_INPUT,
    ("output", "contexts"): CONTEXTS_OUTPUT,
    ("output_minus", "contexts"): CONTEXTS_OUTPUT,
    ("combined", "contexts"): CONTEXTS_COMBINED,
}
