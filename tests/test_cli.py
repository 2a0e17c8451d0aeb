"""What a person or a script sees of the command line: results on stdout, one sentence on stderr, exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result
from PIL import Image

from napari_histodistill.cli import main
from napari_histodistill.errors import printable
from napari_histodistill.slide import synthetic


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


def refusal(*args: object) -> str:
    """The one sentence of a command that must be refused."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith("Error: ")
    return sentence


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    """A small generated slide, 0.5 µm/px."""
    path = tmp_path_factory.mktemp("slide") / "small.tiff"
    synthetic.write_slide(synthetic.draw_slide((1024, 1536), seed=3), path)
    return path


@pytest.fixture(scope="module")
def no_mpp(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "plain.png"
    Image.fromarray(synthetic.draw_slide((512, 512), seed=3).image).save(path)
    return path


def test_help_lists_commands_in_the_order_of_the_work_without_loading_what_computes():
    listed = run("--help").stdout.partition("Commands:")[2].splitlines()
    names = [line.split()[0] for line in listed if line.strip()]
    assert names == [
        "info",
        "segment",
        "study",
        "import",
        "export",
        "audit",
        "check",
        "cut",
        "train-teacher",
        "distill",
        "evaluate",
        "demo",
        "report",
    ]
    script = (
        "import sys\n"
        "from napari_histodistill.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print('loaded:', *{'torch', 'napari', 'qtpy', 'numpy', 'zarr'} & set(sys.modules))\n"
    )
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert told.splitlines()[-1].strip() == "loaded:"


def test_info_gives_one_json_object(slide):
    result = run("info", slide, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["width"], facts["height"]) == (1536, 1024)
    assert facts["mpp_x"] == pytest.approx(0.5, rel=1e-3)
    assert facts["mpp_y"] == pytest.approx(0.5, rel=1e-3)
    assert [level["width"] for level in facts["levels"]] == [1536, 768, 384, 192]
    assert 0.2 < facts["tissue_fraction"] < 0.9
    assert facts["warnings"] == []
    assert facts["format"]


def test_info_without_json_is_readable(slide):
    result = run("info", slide)
    assert result.exit_code == 0
    assert "1536" in result.stdout
    assert "{" not in result.stdout


def test_info_says_that_the_pixel_size_is_missing(no_mpp):
    facts = json.loads(run("info", no_mpp, "--json").stdout)
    assert facts["mpp_x"] is None
    assert any("pixel size" in warning for warning in facts["warnings"])


def test_info_gives_an_absurd_pixel_size_with_a_warning(slides_dir):
    facts = json.loads(run("info", slides_dir / "CMU-1-Small-Region-wrong-mpp.jpeg.tiff", "--json").stdout)
    assert facts["mpp_x"] == pytest.approx(0.00499, rel=0.01)
    assert any("0.00499" in warning for warning in facts["warnings"])


@pytest.mark.parametrize("command", ["info", "segment"])
@pytest.mark.parametrize("name", ["ct-not-a-slide.dcm", "fixtures/unopenable.tiff", "fixtures"])
def test_what_is_no_slide_is_refused_in_one_sentence(slides_dir, tmp_path, command, name):
    args = ["--study", tmp_path / "study"] if command == "segment" else []
    sentence = refusal(command, slides_dir / name, *args)
    assert Path(name).name in sentence


def test_missing_file_is_refused(tmp_path):
    assert "gone.svs" in refusal("info", tmp_path / "gone.svs")


def test_segment_asks_for_a_missing_pixel_size(no_mpp, tmp_path):
    assert "--mpp" in refusal("segment", no_mpp, "--study", tmp_path / "study")


def test_segment_does_not_believe_an_absurd_pixel_size(slides_dir, tmp_path):
    path = slides_dir / "CMU-1-Small-Region-wrong-mpp.jpeg.tiff"
    assert "--mpp" in refusal("segment", path, "--study", tmp_path / "study")


def test_segment_refuses_a_coarse_slide_unless_forced(no_mpp, tmp_path):
    assert "force" in refusal("segment", no_mpp, "--mpp", 7.5, "--study", tmp_path / "study")


def test_segment_refuses_an_unknown_export_before_it_starts(slide, tmp_path):
    assert "geojson" in refusal("segment", slide, "--study", tmp_path / "study", "--export", "bmp")
    assert not (tmp_path / "study").exists()


def test_segment_leaves_mask_and_exports_that_agree_with_its_json(slide, tmp_path):
    formats = "ome-zarr,geojson,png,csv"
    result = run("segment", slide, "--study", tmp_path / "study", "--export", formats, "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert 0 < summary["tumour_mm2"] < summary["tissue_mm2"] < 1024 * 1536 * 0.25e-6
    exports = {name: Path(path) for name, path in summary["exports"].items()}
    assert set(exports) >= {*formats.split(","), "png-mask", "png-probability", "csv-regions"}
    assert all(path.exists() for path in exports.values())
    assert json.loads(exports["geojson"].read_text())["type"] == "FeatureCollection"
    with exports["csv"].open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["tumour_mm2"]) == pytest.approx(summary["tumour_mm2"], rel=1e-3)


def test_interrupted_segment_goes_on_where_it_stopped(slide, tmp_path):
    command = [sys.executable, "-m", "napari_histodistill", "segment", slide, "--study", tmp_path / "study", "--json"]
    process = subprocess.Popen([str(a) for a in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "tile" in line.lower():
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    if process.returncode == 0:  # it was faster than the signal
        return
    assert process.returncode == 130
    assert out == ""
    assert "--resume" in err
    result = run("segment", slide, "--study", tmp_path / "study", "--json", "--resume")
    summary = json.loads(result.stdout)
    assert summary["tiles_computed"] <= summary["tiles"]
    assert summary["tissue_mm2"] > 0


def test_evaluate_and_train_refuse_what_is_no_data_set(tmp_path):
    assert str(tmp_path) in refusal("evaluate", "bundled", tmp_path)
    assert "none.csv" in refusal("train-teacher", tmp_path / "none.csv", "--out", tmp_path / "model")


def test_train_teacher_lists_methods_and_encoders_in_its_help_and_in_its_refusals(tmp_path):
    text = " ".join(run("train-teacher", "--help").stdout.split())
    assert "[dice|gm|attention|swin|masks]" in text
    for name in ("efficientnet-lite0", "vgg16", "mobilenet-v3-small", "swin-t"):
        assert name in text
    assert "attention, swin" in refusal("train-teacher", tmp_path, "--out", tmp_path, "--method", "magic")
    assert "swin-t" in refusal("train-teacher", tmp_path, "--out", tmp_path, "--encoder", "resnet")


def test_evaluate_gives_the_measures_and_the_baseline_from_a_manifest(tmp_path):
    drawn = synthetic.draw_slide((1024, 1536), seed=3)
    Image.fromarray(drawn.image).save(tmp_path / "a.png")
    Image.fromarray(drawn.truth.astype(np.uint8) * 255).save(tmp_path / "m.png")
    Image.fromarray(drawn.image[:512, :512]).save(tmp_path / "b.png")
    rows = ["image,label,mask,patient,mpp", "a.png,1,m.png,p1,0.5", "b.png,0,,p2,0.5"]
    (tmp_path / "data.csv").write_text("\n".join(rows))
    result = run("evaluate", "bundled", tmp_path / "data.csv", "--per-image", tmp_path / "each.csv", "--json")
    assert result.exit_code == 0, result.output
    assert [row["patient"] for row in csv.DictReader((tmp_path / "each.csv").open())] == ["p1", "p2"]
    scores = json.loads(result.stdout)
    measures = {"f1_positive", "f1_negative", "miou", "miou_image", "dice_pooled", "hd95_um"}
    assert measures <= set(scores)
    assert measures <= set(scores["all_foreground"])
    assert scores["n_images"] == 2


def test_unreadable_slide_is_no_traceback(slides_dir, tmp_path):
    result = run("segment", slides_dir / "fixtures" / "unreadable.svs", "--study", tmp_path / "s", "--mpp", 0.5)
    assert result.exit_code in (0, 2)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "read" in result.stderr


def test_a_16_bit_grey_picture_is_converted_and_said_so(tmp_path):
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 65535, (400, 300), dtype=np.uint16))
    facts = json.loads(run("info", path, "--mpp", 0.5, "--json").stdout)
    assert any("8 bits" in warning for warning in facts["warnings"])


@pytest.fixture(scope="module")
def result(slide, tmp_path_factory) -> Path:
    """A study with a segmented slide."""
    study = tmp_path_factory.mktemp("result") / "study"
    done = run("segment", slide, "--study", study, "--json")
    assert done.exit_code == 0, done.output
    return study


def test_export_writes_one_format_and_says_where(result, tmp_path):
    done = run("export", result, "--format", "ome-tiff,csv", "--out", tmp_path, "--json")
    assert done.exit_code == 0, done.output
    written = json.loads(done.stdout)
    assert Path(written["ome-tiff"]) == tmp_path / "small.ome.tiff"
    assert {Path(path).parent for path in written.values()} == {tmp_path}
    named = run("export", result, "--slide", "small.tiff", "--format", "geojson", "--out", tmp_path / "a.geojson")
    assert named.exit_code == 0
    assert json.loads((tmp_path / "a.geojson").read_text())["histodistill"]["slide"] == "small.tiff"


def test_export_refuses_with_a_sentence_what_there_is_not(result):
    assert "no slide 'other'" in refusal("export", result, "--slide", "other", "--format", "csv")
    assert "no round" in refusal("export", result, "--what", "prediction", "--format", "csv")
    assert "no corrections" in refusal("export", result, "--what", "corrections", "--format", "csv")
    assert "no export format" in refusal("export", result, "--format", "docx")


def test_audit_says_what_little_is_known_before_patches_were_labelled(result):
    told = json.loads(run("audit", result, "--json").stdout)
    assert (told["patches_drawn"], told["patches_labelled"]) == (0, 0)
    (own,) = told["predictions"]
    assert own["prediction"] == "own result"
    assert own["dice"] is None
    assert own["predicted_mm2"] > 0
    assert "no slide" in refusal("audit", result, "--slide", "other")


def test_import_tells_where_a_file_lands_and_writes_it_as_corrections(result, tmp_path):
    square = [[[200, 100], [400, 100], [400, 300], [200, 300], [200, 100]]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": square}}
    feature["properties"] = {"classification": {"name": "Gland=1"}}
    file = tmp_path / "a.geojson"
    file.write_text(json.dumps(feature))
    arguments = ("import", result, file, "--as", "corrections", "--class", "Gland=1=tumour", "--json")
    dry = run(*arguments, "--dry-run")
    assert dry.exit_code == 0, dry.output
    told = json.loads(dry.stdout)
    assert told["areas"] == {"tumour mm²": pytest.approx(0.01, rel=0.1)}
    assert not told["applied"]
    assert "no corrections" in refusal("export", result, "--what", "corrections", "--format", "csv")
    assert json.loads(run(*arguments).stdout) == {**told, "applied": True}
    out = run("export", result, "--what", "corrections", "--format", "csv", "--out", tmp_path)
    assert out.exit_code == 0
    (row,) = csv.DictReader((tmp_path / "small-corrections.csv").open(encoding="utf-8"))
    assert float(row["tumour_mm2"]) == pytest.approx(0.01, rel=0.1)


def test_several_slides_share_a_study_and_one_that_fails_is_told_at_the_end(slide, tmp_path):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"nothing")
    result = run("segment", broken, slide, "--study", tmp_path / "study", "--device", "cpu", "--threads", "1", "--json")
    assert result.exit_code == 1
    assert "Failed: broken.svs: " in result.stderr
    told = json.loads(result.stdout)
    assert [one["slide"] for one in told["slides"]] == [str(slide)]
    assert [one["slide"] for one in told["failed"]] == [str(broken)]


def test_a_cluster_is_either_here_or_elsewhere(slide, tmp_path):
    where = ("--scheduler", "tcp://127.0.0.1:9", "--local-cluster", "2")
    assert "either --scheduler or --local-cluster" in refusal("segment", slide, "--study", tmp_path / "study", *where)


def test_a_slide_whose_record_is_damaged_keeps_no_other_from_being_listed(slide, tmp_path):
    study = tmp_path / "study"
    for number in (1, 2, 3):
        path = tmp_path / f"slide-{number}.tiff"
        path.write_bytes(slide.read_bytes() + bytes([number]))
        assert run("study", "add", study, path).exit_code == 0
    first, second, _ = sorted((study / "slides").iterdir())
    for path in first.glob("slide.json*"):
        path.write_text("{")
    (second / "corrections.journal").mkdir()  # something of it that cannot be read
    listed = run("study", "list", study)
    assert listed.exit_code == 1
    lines = [line.split("\t") for line in listed.stdout.splitlines()]
    assert [line[0] for line in lines] == [first.name, "slide-2.tiff", "slide-3.tiff"]
    assert "histodistill check" in lines[0][2]
    assert "cannot be read" in lines[1][2]
    assert lines[2][1:] == ["unknown", "not opened yet"]
    listed = run("study", "list", study, "--json")
    assert listed.exit_code == 1
    assert ["problem" in found for found in json.loads(listed.stdout)["slides"]] == [True, True, False]


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"caf\xe9 x.tiff"), "a\nb.tiff", "\u202e.tiff"], ids=["latin-1", "lines", "turned"]
)
def test_names_of_slides_forge_no_line_and_break_no_command(slide, tmp_path, name):
    path, study = tmp_path / name, tmp_path / f"study of {name}"
    try:
        path.write_bytes(slide.read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    shown = printable(name)
    assert shown != name
    assert run("study", "add", study, path).stdout.startswith(f"{shown}  ")
    assert run("study", "list", study).stdout == f"{shown}\tunknown\tnot opened yet\n"
    (found,) = json.loads(run("study", "list", study, "--json").stdout)["slides"]
    assert found["slide"] == name
    assert run("study", "label", study, name, "tumour").exit_code == 0
    for document in study.glob("slides/*/slide.json*"):
        document.write_text("{")
    checked = run("check", study, "--repair")
    assert (checked.exit_code, printable(str(study)) in checked.stdout) == (1, True)


def test_which_slides_a_study_holds(slide, tmp_path):
    study, moved = tmp_path / "study", tmp_path / "here.tiff"
    moved.write_bytes(slide.read_bytes())
    assert run("study", "add", study, moved).exit_code == 0
    assert run("study", "label", study, "here", "tumour").exit_code == 0
    assert run("study", "list", study).stdout == "here.tiff\ttumour\tnot opened yet\n"
    moved.rename(tmp_path / "there.tiff")
    assert "missing: moved" in run("study", "list", study).stdout
    assert "another slide" in refusal("study", "relink", study, __file__, "--slide", "here")
    assert run("study", "relink", study, tmp_path).exit_code == 0
    assert "there.tiff" in run("study", "remove", study, "there").stdout
    assert json.loads(run("study", "list", study, "--json").stdout) == {"slides": []}
    assert "choose one of" in refusal("study", "restore", study, "nothing")
    assert run("study", "restore", study, "there.tiff").exit_code == 0
    (found,) = json.loads(run("study", "list", study, "--json").stdout)["slides"]
    assert (found["slide"], found["label"], found["there"]) == ("there.tiff", "tumour", True)
    assert (found["predicted"], found["strokes"], found["tumour_mm2"]) == (False, 0, None)
