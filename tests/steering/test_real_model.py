"""Calibration and generation on real models: targets met, rows independent of batch mates."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from assets.activations.hooks import add_at_site
from assets.activations.sites import ActivationSite, locate_block
from assets.activations.suffix_forward import SuffixForward
from assets.evidence.vocab_projection import project_vocabulary
from assets.steering.calibration import CalibrationRun, calibrate_strengths
from assets.steering.config import SteeringConfig
from assets.steering.generation import SamplingSettings, SteeredRow, generate_steered
from assets.steering.steered_site import steered_directions, steered_site
from assets.steering.text_plan import TextPlan, plan_texts, texts_frame
from resources.subject_model import load_subject_model
from tests.steering.mean_kl import mean_kl
from tests.steering.planted_steering import no_forward

SITE = ActivationSite(15)
CONFIG = SteeringConfig()
TARGETS = (0.025, 0.1, 0.5)


@pytest.mark.slow
def test_steering_a_real_model_end_to_end() -> None:
    subject = load_subject_model("smollm2-135m-instruct", cache_folder=Path(".cache/models"))
    model, tokenizer = subject.model, subject.tokenizer
    generator = torch.Generator().manual_seed(0)
    directions = torch.zeros(3, 1536)
    for row in directions:  # sparse, as features are
        row[torch.randperm(1536, generator=generator)[:15]] = torch.randn(15, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    prompt_ids = [tokenizer(prompt)["input_ids"] for prompt in CONFIG.neutral_prompts]

    def calibrate(which: slice, signs: tuple[str, ...], **options: object) -> CalibrationRun:
        return calibrate_strengths(
            model,
            SITE,
            directions[which],
            feature_ids=range(3)[which],
            signs=signs,
            prompt_ids=prompt_ids,
            own_tokens={1: [100, 2000]},
            **options,
        )

    run = calibrate(slice(3), CONFIG.signs, target_kl_nats=TARGETS)
    assert len(run.rows) == 3 * 2 * 3
    alone = calibrate(slice(1, 2), ("-",), target_kl_nats=(0.1,)).rows
    assert alone.equals(run.rows.filter(feature_id=1, sign="-", target_kl_nats=0.1))
    with no_forward(model):
        again = calibrate(slice(3), CONFIG.signs, target_kl_nats=TARGETS, previous=run.rows)
    assert again.rows.equals(run.rows)
    fewer = run.rows.filter(pl.col("target_kl_nats") != 0.5)
    added = calibrate(slice(3), CONFIG.signs, target_kl_nats=TARGETS, previous=fewer)
    assert (added.rows_reused, added.rows_computed) == (12, 6)
    assert added.rows.equals(run.rows)
    reached = run.rows.filter(pl.col("is_converged"))
    assert len(reached) >= 0.9 * len(run.rows), run.rows.filter(~pl.col("is_converged"))
    for row in reached.gather_every(4).iter_rows(named=True):
        vector = (1 if row["sign"] == "+" else -1) * row["strength"] * directions[row["feature_id"]]
        kls = []
        for ids in prompt_ids:
            inputs = {"input_ids": torch.tensor([ids])}
            with torch.no_grad():
                base = model(**inputs).logits[0, -1].double().log_softmax(-1)
                with add_at_site(model, SITE, vector):
                    steered = model(**inputs).logits[0, -1].double().log_softmax(-1)
            kls.append((base.exp() * (base - steered)).sum())
        kl = torch.stack(kls).mean().item()
        assert kl == pytest.approx(row["target_kl_nats"], rel=CONFIG.tolerance + 1e-3)

    settings = SamplingSettings(max_new_tokens=12)

    def plan_of(rows: pl.DataFrame, previous: pl.DataFrame | None = None) -> TextPlan:
        return plan_texts(
            rows,
            dict(enumerate(directions)),
            prompts=CONFIG.neutral_prompts,
            prompt_ids=prompt_ids,
            n_texts=2,
            seed=1,
            settings=settings,
            previous=previous,
        )

    strongest = run.rows.filter(target_kl_nats=0.5)
    plan = plan_of(strongest.head(4))
    texts = generate_steered(model, tokenizer, SITE, plan.to_generate, settings)
    reordered = generate_steered(model, tokenizer, SITE, plan.to_generate[::-1], settings)
    alone = [
        generate_steered(model, tokenizer, SITE, [row], settings)[0]
        for row in plan.to_generate[::6]
    ]
    assert texts == reordered[::-1] and texts[::6] == alone
    frame = texts_frame(plan, texts)
    rerun = plan_of(strongest.head(4), previous=frame)
    assert rerun.to_generate == [] and texts_frame(rerun, []).equals(frame)
    more = plan_of(strongest.head(5), previous=frame)
    assert {(row.feature_id, row.sign) for row in more.to_generate} == {(2, "+")}
    together = plan_of(strongest.head(5))
    written = [
        generate_steered(model, tokenizer, SITE, p.to_generate, settings) for p in (more, together)
    ]
    assert texts_frame(more, written[0]).equals(texts_frame(together, written[1]))
    steered = frame.filter(pl.col("sign") != "0", status="ok")
    assert len(set(steered["text"])) > len(steered) // 2

    projection = project_vocabulary(model, tokenizer, SITE, directions, n_vocab=5)
    assert len(projection) == 3 * 2 * 5
    assert projection["token"].str.len_chars().mean() > 2, "tokens are whole"


@pytest.mark.slow
@pytest.mark.parametrize("layer", [3, 27])
def test_strength_zero_is_the_base_text_whatever_its_batch_mates(layer: int) -> None:
    subject = load_subject_model("smollm2-135m-instruct", cache_folder=Path(".cache/models"))
    model, tokenizer = subject.model, subject.tokenizer
    site = ActivationSite(layer)
    generator = torch.Generator().manual_seed(0)
    vectors = 20 * torch.randn(4, 1536, generator=generator)
    prompts = [tuple(tokenizer(prompt)["input_ids"]) for prompt in CONFIG.neutral_prompts[:4]]
    settings = SamplingSettings(max_new_tokens=16, top_p=0.9, batch_rows=4)

    def rows(kind: float | None) -> list[SteeredRow]:
        return [
            SteeredRow(i, "+", 0.1, i, prompts[i], None if kind is None else kind * vectors[i], i)
            for i in range(4)
        ]

    base = generate_steered(model, tokenizer, site, rows(None), settings)
    mixed = [row for trio in zip(rows(0.0), rows(1.0), rows(None), strict=True) for row in trio]
    texts = generate_steered(model, tokenizer, site, mixed, settings)
    assert texts[0::3] == texts[2::3] == base
    assert all(a != b for a, b in zip(texts[1::3], base, strict=True))
    # The model's own cached loop, without any hook of ours.
    first = prompts[0]
    ids = torch.tensor([first])
    greedy = SamplingSettings(max_new_tokens=16, top_k=1, batch_rows=4)
    (text,) = generate_steered(model, tokenizer, site, rows(None)[:1], greedy)
    (zero,) = generate_steered(model, tokenizer, site, rows(0.0)[:1], greedy)
    with torch.no_grad():
        whole = model.generate(ids, max_new_tokens=16, do_sample=False, repetition_penalty=1.0)[0]
    prompt = tokenizer.decode(first, skip_special_tokens=True)
    assert tokenizer.decode(whole, skip_special_tokens=True) == prompt + text == prompt + zero


@pytest.mark.slow
def test_behind_gemmas_norm_sparse_features_reach_half_a_nat() -> None:
    subject = load_subject_model("gemma3-270m", cache_folder=Path(".cache/models"))
    model, site, n = subject.model, ActivationSite(14), 6
    generator = torch.Generator().manual_seed(0)
    rows = torch.zeros(n, 2048)
    for row in rows:  # 1 % of the neurons, as in a fit
        row[torch.randperm(2048, generator=generator)[:21]] = torch.randn(21, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    prompt_ids = [subject.tokenizer(prompt)["input_ids"] for prompt in CONFIG.neutral_prompts[:2]]
    run = calibrate_strengths(
        model,
        steered_site(model, site),
        steered_directions(model, site, rows),
        feature_ids=range(n),
        signs=CONFIG.signs,
        target_kl_nats=(0.5,),
        prompt_ids=prompt_ids,
    )
    reached = run.rows.filter(status="ok")
    assert len(reached) >= 0.99 * len(run.rows) == 0.99 * 2 * n, run.rows
    assert set(run.rows["steered_at"]) == {"mlp_out"}
    block = locate_block(model, 14)
    for row in reached.head(2).iter_rows(named=True):
        added = block.post_feedforward_layernorm(block.mlp.down_proj(rows[row["feature_id"]]))
        added *= (1 if row["sign"] == "+" else -1) * row["strength"] / added.norm()
        kls = []
        for ids in prompt_ids:
            inputs = {"input_ids": torch.tensor([ids])}
            base = model(**inputs).logits[0, -1].double().log_softmax(-1)
            hook = block.post_feedforward_layernorm.register_forward_hook(
                lambda _, __, output, added=added: output + added
            )
            steered = model(**inputs).logits[0, -1].double().log_softmax(-1)
            hook.remove()
            kls.append((base.exp() * (base - steered)).sum())
        kl = torch.stack(kls).mean().item()
        assert kl == pytest.approx(0.5, rel=CONFIG.tolerance + 1e-3)
    # The control: before the norm, a hundred times as strong changes nothing any more.
    plain = SuffixForward(model, site, prompt_ids)
    saturated = mean_kl(plain, torch.cat([1e4 * rows[:4], 1e6 * rows[:4]]), 16)
    assert saturated[4:] == pytest.approx(saturated[:4], rel=0.02)
