"""Study files: what is wrong is said with file, key and the nearest valid key."""

from pathlib import Path

import pytest
import yaml

from resources.study_files import StudiesResource, StudyError, load_study

MINIMAL = {
    "name": "small",
    "corpus": {"path": "bundled:concepts"},
    "models": [{"source": "smollm2-135m-instruct", "layers": [3, 7]}],
    "fits": [{"method": "snmf", "rank": 8}, {"method": "random", "rank": 8}],
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


def test_a_minimal_study_names_its_sites_and_fits(tmp_path: Path) -> None:
    study = load_study(written(tmp_path))
    assert [site.key for site in study.sites()] == [
        "small:smollm2-135m-instruct@L3.mlp_hidden",
        "small:smollm2-135m-instruct@L7.mlp_hidden",
    ]
    assert [fit.key for fit in study.fits] == ["snmf-k008", "random-k008"]
    assert len(study.sites()[0].siblings()) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steerin": {}}, r"unknown key `steerin`; the nearest valid key is `steering`"),
        (
            {"corpus": {"pth": "x"}},
            r"corpus\.pth: unknown key `pth`; the nearest valid key is `path`",
        ),
        (
            {"fits": [{"method": "snmf", "rnk": 3}]},
            r"fits\.0\.rnk: unknown key `rnk`; the nearest valid key is `rank`",
        ),
        ({"fits": [{"method": "nonsense", "rank": 3}]}, r"fits\.0\.method.*nonsense"),
        ({"models": []}, "models"),
        ({"name": "Bad|Name"}, "name"),
        ({"fits": [{"method": "snmf", "rank": 8}] * 2}, "repeat the key 'snmf-k008'"),
        (
            {"fits": [{"method": "transcoder", "rank": 8}]},
            r"'transcoder-k008' needs the kinds mlp_in, mlp_out of each model; "
            r"smollm2-135m-instruct has mlp_hidden: add mlp_in, mlp_out to its `kinds`",
        ),
        (
            {"fits": [{"method": "pca", "rank": 8, "kinds": ["attn_out"]}]},
            r"'pca-k008' runs at no site of the study, whose kinds are mlp_hidden",
        ),
        (
            {"steering": {"judged_labels": ["output"]}, "labels": {"kinds": ["input", "output"]}},
            r"steering\.judged_labels \(output\) needs labels that labels\.kinds \(input, output\) "
            r"has not: add output_minus there",
        ),
        (
            {"judge_llm": {"model": "x"}, "nightly": {"budget": {"usd": 1}}},
            r"usd_per_million_completion_tokens` to `judge_llm`",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict, expected: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(StudyError, match=expected) as caught:
        load_study(path)
    assert str(path) in str(caught.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"none\.yaml"):
        load_study(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [")
    with pytest.raises(StudyError, match=r"broken\.yaml is not readable YAML"):
        load_study(broken)


def test_keys_resolve_back_to_what_they_stand_for(tmp_path: Path) -> None:
    written(tmp_path)
    studies = StudiesResource(folder=str(tmp_path))
    spec = studies.fit("small:smollm2-135m-instruct@L7.mlp_hidden", "snmf-k008")
    assert (spec.site.layer, spec.fit.rank, spec.study.name) == (7, 8, "small")
    with pytest.raises(StudyError, match="has no site"):
        studies.site("small:smollm2-135m-instruct@L9.mlp_hidden")
    with pytest.raises(StudyError, match="has no fit"):
        studies.fit(spec.site.key, "snmf-k999")
    with pytest.raises(StudyError, match="no study named 'other'"):
        studies.study("other")


def test_fits_are_made_at_their_kinds_of_site(tmp_path: Path) -> None:
    kinds = ["mlp_in", "mlp_out", "resid_post"]
    written(
        tmp_path,
        models=[{"source": "smollm2-135m-instruct", "layers": [3], "kinds": kinds}],
        fits=[
            {"method": "snmf", "rank": 8},
            {"method": "transcoder", "rank": 8},
            {"method": "neurons", "rank": 8, "kinds": ["mlp_in"]},
        ],
    )
    studies = StudiesResource(folder=str(tmp_path))
    study = studies.study("small")
    made = {kind: [fit.method for fit in study.fits_at(kind)] for kind in kinds}
    assert made == {
        "mlp_in": ["neurons"],
        "mlp_out": ["snmf", "transcoder"],
        "resid_post": ["snmf"],
    }
    site = "small:smollm2-135m-instruct@L3.{}".format
    transcoder = studies.fit(site("mlp_out"), "transcoder-k008")
    assert transcoder.input_site is not None
    assert transcoder.input_site.key == site("mlp_in")
    assert studies.fit(site("resid_post"), "snmf-k008").input_site is None
    with pytest.raises(StudyError, match="'transcoder-k008' is not made at sites of kind resid"):
        studies.fit(site("resid_post"), "transcoder-k008")


def test_a_wrong_file_is_left_out_and_named_and_the_others_work(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "copy.yaml").write_text(yaml.safe_dump({**MINIMAL, "name": "small"}))
    (tmp_path / "half.yaml").write_text("name: half\nfit: []\n")
    studies = StudiesResource(folder=str(tmp_path))
    readable, problems = studies.readable()
    assert [study.name for study in readable] == ["small"]
    assert len(problems) == 2
    assert studies.study("small").name == "small"
    with pytest.raises(StudyError, match="unknown key `fit`; the nearest valid key is `fits`"):
        studies.study("half")


@pytest.mark.parametrize("name", ["a.b", "a-b", "a_b"])
def test_names_that_make_one_schedule_name_are_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path, name="a_b")
    (tmp_path / "z.yaml").write_text(yaml.safe_dump({**MINIMAL, "name": name}))
    _, problems = StudiesResource(folder=str(tmp_path)).readable()
    assert "too like that of study" in str(problems[0])


@pytest.mark.parametrize(
    ("nightly", "complaint"),
    [({"cron": "soon"}, "no cron expression"), ({"timezone": "Mars/Base"}, "no IANA time zone")],
)
def test_a_wrong_schedule_is_named(tmp_path: Path, nightly: dict, complaint: str) -> None:
    with pytest.raises(StudyError, match=complaint):
        load_study(written(tmp_path, nightly=nightly))


def test_the_nightly_switch_reads_yaml_on_and_off(tmp_path: Path) -> None:
    assert load_study(written(tmp_path)).nightly.switch == "off"
    path = written(tmp_path)
    path.write_text(path.read_text() + "nightly:\n  switch: on\n  cron: '5 1 * * *'\n")
    assert load_study(path).nightly.switch == "on"
