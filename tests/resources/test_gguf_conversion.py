"""A GGUF file becomes the model that transformers reads, once, whatever breaks off."""

from __future__ import annotations

import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from resources import model_sources
from resources.model_sources import converted_gguf
from resources.subject_model import forget_subject_models, load_subject_model

pytestmark = pytest.mark.usefixtures("no_models_kept")

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    """A llama of random weights in a GGUF file with a byte-level vocabulary."""
    path = tmp_path / "models" / "Tiny Llama.F16.gguf"
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<|end|>"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(257)
    shapes = {"token_embd": (len(vocabulary), 16), "output": (len(vocabulary), 16)}
    for i in range(2):
        shapes |= {
            f"blk.{i}.attn_q": (16, 16),
            f"blk.{i}.attn_k": (8, 16),
            f"blk.{i}.attn_v": (8, 16),
            f"blk.{i}.attn_output": (16, 16),
            f"blk.{i}.ffn_gate": (24, 16),
            f"blk.{i}.ffn_up": (24, 16),
            f"blk.{i}.ffn_down": (16, 24),
            f"blk.{i}.attn_norm": (16,),
            f"blk.{i}.ffn_norm": (16,),
        }
    shapes["output_norm"] = (16,)
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32 if len(shape) == 1 else np.float16)
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_is_converted_once_to_the_model_transformers_reads(
    tiny_gguf: Path, monkeypatch
) -> None:
    cache = tiny_gguf.parent.parent / "cache"
    subject = load_subject_model(str(tiny_gguf), cache_folder=cache)
    place = {"pretrained_model_name_or_path": str(tiny_gguf.parent), "gguf_file": tiny_gguf.name}
    expected = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)(IDS).logits
    assert torch.equal(subject.model(IDS).logits, expected)
    ids = AutoTokenizer.from_pretrained(**place)("ab c")["input_ids"]
    assert subject.tokenizer("ab c")["input_ids"] == ids
    assert subject.name == "tiny-llama.f16"
    folder = converted_gguf(tiny_gguf, cache)
    assert "quantization_config" not in (folder / "config.json").read_text()

    forget_subject_models()
    monkeypatch.setattr(model_sources, "_write_conversion", lambda *_: pytest.fail("done already"))
    again = load_subject_model(str(tiny_gguf), cache_folder=cache)
    assert again.revision == subject.revision
    assert torch.equal(again.model(IDS).logits, expected)


def test_a_conversion_killed_half_way_is_made_again(tiny_gguf: Path, monkeypatch) -> None:
    cache = tiny_gguf.parent.parent / "cache"
    whole = model_sources._write_conversion

    def killed(source: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{")
        (folder / "left-over").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(model_sources, "_write_conversion", killed)
    with pytest.raises(KeyboardInterrupt):
        load_subject_model(str(tiny_gguf), cache_folder=cache)
    assert list(cache.glob("*.partial"))
    monkeypatch.setattr(model_sources, "_write_conversion", whole)
    assert load_subject_model(str(tiny_gguf), cache_folder=cache).n_layers == 2
    assert not list(cache.glob("*.partial"))
    assert not list(cache.rglob("left-over"))


def test_two_at_once_convert_once(tiny_gguf: Path, monkeypatch) -> None:
    cache = tiny_gguf.parent.parent / "cache"
    conversions: list[int] = []
    both_wait = threading.Barrier(2)
    whole = model_sources._write_conversion

    def counted(source: Path, folder: Path) -> None:
        conversions.append(1)
        whole(source, folder)

    monkeypatch.setattr(model_sources, "_write_conversion", counted)
    folders: list[Path] = []

    def convert() -> None:
        both_wait.wait()
        folders.append(converted_gguf(tiny_gguf, cache))

    threads = [threading.Thread(target=convert) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 2 and folders[0] == folders[1]
    assert conversions == [1]
