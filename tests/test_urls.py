"""Slides and studies in object storage: an S3-compatible server that is really there, and hosts that are not."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import napari_histodistill as hd
from napari_histodistill import urls
from napari_histodistill.cli import main
from napari_histodistill.errors import HistodistillError
from napari_histodistill.slide import SlideError, open_slide
from napari_histodistill.study import Study, StudySlide
from napari_histodistill.urls import UrlError, UrlPath, to_path

SIDE = 1000


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> str:
    """URL of a bucket with a slide and a study of it; the server's address and keys are in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    folder = tmp_path_factory.mktemp("there")
    slide = write_slide(folder / "slide.zarr")
    write_study(folder / "study", slide)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("slides")
        bucket.put(str(folder), "slides/", recursive=True)
        yield f"s3://slides/{folder.name}"
    server.stop()


def write_slide(path: Path) -> Path:
    """An OME-Zarr image of two levels at 0.5 µm."""
    rng = np.random.default_rng(0)
    image = np.full((3, SIDE, SIDE), 240, np.uint8)
    image[:, 100:800, 100:800] = rng.integers(90, 200, (3, 700, 700))
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx")]
    scales = [[1.0, 0.5 * 2**i, 0.5 * 2**i] for i in range(2)]
    sets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": s}]} for i, s in enumerate(scales)
    ]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": sets}]}
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": ome})
    for i in range(2):
        level = image[:, :: 2**i, :: 2**i]
        group.create_array(str(i), shape=level.shape, chunks=(3, 256, 256), dtype=np.uint8)[:] = level
    return path


def write_study(folder: Path, slide: Path) -> None:
    """A study of the slide with a result and a correction, none of it by a model."""
    with open_slide(slide) as opened:
        entry = Study.create(folder).add_slide(opened)
    entry.save_tissue(np.ones(entry.grid.shape, np.uint8), settings={})
    run = entry.new_run({"model": "none"})
    run.probability.write(0, 0, np.full(entry.grid.shape, 200, np.uint8))
    with run.replace_pseudo_mask() as mask:
        mask.write(0, 0, np.ones(entry.grid.shape, np.uint8))
    entry.complete_run(run, {"threshold": 0.5, "smoothing_um": 0.0, "unreadable": 0})
    entry.save_corrections_region(10, 20, np.full((5, 5), 2, np.uint8), tool="brush")


def test_a_url_stays_a_url_whatever_a_path_does_to_it():
    for given in ("s3://bucket/a/slide.zarr", Path("s3://bucket/a/slide.zarr"), UrlPath("s3://bucket/a/slide.zarr")):
        path = to_path(given)
        assert isinstance(path, UrlPath)
        assert (str(path), path.name, path.stem) == ("s3://bucket/a/slide.zarr", "slide.zarr", "slide")
        assert str(path.parent / "b") == "s3://bucket/a/b"
        assert path.absolute() == path
    for given in ("C:/a/slide.svs", "/a/b.svs", "a:b.svs", "rel/s3:/x"):
        assert not isinstance(to_path(given), UrlPath)
    assert to_path("file:///a/b.zarr") == Path("/a/b.zarr")


def test_a_slide_in_a_bucket_has_the_pixels_of_the_same_one_on_disk(s3, tmp_path):
    with open_slide(write_slide(tmp_path / "slide.zarr")) as here, open_slide(f"{s3}/slide.zarr") as there:
        assert (there.shape, there.mpp, there.name) == ((SIDE, SIDE), (0.5, 0.5), "slide.zarr")
        assert (there.read_level(0, 90, 300, 400, 500) == here.read_level(0, 90, 300, 400, 500)).all()
        assert there.unreadable == 0
        assert len(there.fingerprint) == 32
        assert there.pyramid()[1][:10, :10].shape == (10, 10, 3)


def test_only_what_is_looked_at_is_read(s3, monkeypatch):
    from zarr.storage import FsspecStore

    asked = []
    plain = FsspecStore.get

    async def get(self, key, *args, **kwargs):
        asked.append(key)
        return await plain(self, key, *args, **kwargs)

    monkeypatch.setattr(FsspecStore, "get", get)
    with open_slide(f"{s3}/slide.zarr") as slide:
        assert not any("/c/" in key for key in asked)
        slide.read_level(0, 0, 0, 100, 100)
    assert [key for key in asked if "/c/" in key] == ["0/c/0/0/0"]


def test_napari_reads_it_lazily(s3):
    from napari_histodistill.viewer.reader import get_reader

    ((levels, options, kind),) = get_reader(f"{s3}/slide.zarr")(f"{s3}/slide.zarr")
    assert (kind, levels[0].shape, options["name"]) == ("image", (SIDE, SIDE, 3), "slide")
    assert levels[1][200:204, 200:204].max() < 200


def test_segmenting_a_slide_in_a_bucket_leaves_a_study_on_disk(s3, tmp_path):
    result = hd.segment(f"{s3}/slide.zarr", tmp_path / "study", device="cpu", threads=1)
    assert not result.failures, result.failures
    (entry,) = Study.open(tmp_path / "study").slides()
    assert str(entry.slide_path) == f"{s3}/slide.zarr"
    assert hd.export_files(tmp_path / "study", ["png"])["png"].exists()


def test_the_command_line_takes_urls(s3):
    told = CliRunner().invoke(main, ["info", f"{s3}/slide.zarr", "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["path"] == f"{s3}/slide.zarr"


def test_a_study_in_a_bucket_can_be_looked_at_and_exported(s3, tmp_path):
    (entry,) = hd.open_study(f"{s3}/study").slides()
    mask = entry.corrected(0, 0, entry.pseudo_mask()[:])
    assert (mask[10:15, 20:25] == 2).all()
    assert (entry.probability()[:] == 200).all()
    assert str(entry.slide_path) == f"{s3}/slide.zarr"  # beside it, as it was on the disk
    written = hd.export_files(f"{s3}/study", ["geojson", "csv", "png"], out=tmp_path)
    assert all(path.exists() for path in written.values())


def test_corrections_of_a_study_in_a_bucket_are_read_from_its_array_too(s3, tmp_path):
    import s3fs

    write_study(tmp_path / "old", write_slide(tmp_path / "slide.zarr"))
    (entry,) = Study.open(tmp_path / "old").slides()
    entry.all_corrections().compact()
    for name in ("corrections.journal", "corrections.json"):  # as version 0.1 left it
        (entry.folder / name).unlink()
    s3fs.S3FileSystem().put(str(tmp_path / "old"), "slides/old", recursive=True)
    (there,) = hd.open_study("s3://slides/old").slides()
    assert (there.corrections().read(10, 20, 5, 5) == 2).all()
    assert there.corrections().problems() == []


def test_the_overview_of_a_study_in_a_bucket_has_pictures_and_counts_corrections(s3):
    from napari_histodistill.jobs import InlineControl
    from napari_histodistill.predict.overview import overview_of
    from napari_histodistill.study.thumbnail import thumbnail_of

    (entry,) = hd.open_study(f"{s3}/study").slides()
    assert thumbnail_of(entry).ndim == 3
    assert overview_of(entry, InlineControl()).figures.tumour_percent < 100


def test_opening_an_entry_of_a_study_in_a_bucket_asks_for_few_files(s3, monkeypatch):
    (folder,) = hd.open_study(f"{s3}/study").slide_folders()
    asked = []
    plain = UrlPath.stat
    monkeypatch.setattr(UrlPath, "stat", lambda self, **how: asked.append(self) or plain(self, **how))
    monkeypatch.setattr(UrlPath, "iterdir", None)  # a host need not list anything
    StudySlide.open(folder)
    assert [path.name for path in asked] == ["slide.json"]


def test_a_network_that_is_gone_is_a_sentence_in_the_middle_of_the_work_too(s3, monkeypatch):
    class EndpointError(Exception):
        """As botocore's: of no class that is known here."""

    async def get(*_: object, **__: object) -> None:
        raise EndpointError("no route")

    (entry,) = hd.open_study(f"{s3}/study").slides()
    probability = entry.run.probability
    monkeypatch.setattr("zarr.storage.FsspecStore.get", get)
    for read in (lambda: probability.read(0, 0, 5, 5), lambda: entry.run):
        with pytest.raises(UrlError, match=r"no route.*check the address, the network"):
            read()


def test_a_study_in_a_bucket_is_not_written_to(s3, tmp_path):
    (entry,) = hd.open_study(f"{s3}/study").slides()
    with pytest.raises(HistodistillError, match=r"read-only here.*copy the folder to a disk"):
        entry.save_corrections_region(0, 0, np.ones((4, 4), np.uint8))
    with pytest.raises(HistodistillError, match="read-only here"):
        hd.export_files(f"{s3}/study", ["geojson"])
    slide = write_slide(tmp_path / "slide.zarr")
    for folder in (f"{s3}/study", f"{s3}/new"):
        result = hd.segment(slide, folder, device="cpu")
        assert "read-only here" in result.failures[0].sentence
    with pytest.raises(HistodistillError, match="read-only here"):
        hd.distill_study(f"{s3}/study", device="cpu")


def test_what_is_not_there_is_a_sentence(s3):
    for url in (f"{s3}/none.zarr", "s3://no-such-bucket/slide.zarr", f"{s3}/study"):
        with pytest.raises(SlideError, match=r"holds no OME-Zarr|cannot be read|without OME-Zarr"):
            open_slide(url)
    with pytest.raises(HistodistillError, match="choose a folder that holds a study"):
        Study.open(f"{s3}/slide.zarr")


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1:9/slide.zarr", "nonsense://host/slide.zarr", "http://[::1/x.zarr", "https://u:p@/%00\n.zarr"],
)
def test_hosts_that_do_not_answer_and_urls_that_are_none_are_a_sentence(url):
    told = CliRunner().invoke(main, ["info", url])
    assert told.exit_code == 2, told.output
    assert "Traceback" not in told.output
    assert told.stderr.startswith("Error: ")


class Host(ThreadingHTTPServer):
    """A web server over a folder, whose chunk 0/c/0/0/0 is ``trap``; it knows no ranges and counts what it sends."""

    def __init__(self, folder: Path, trap: str) -> None:
        self.trap, self.sent = trap, 0
        self.part = gzip.compress(bytes(1 << 26)) if trap == "packed" else bytes(1 << 16)
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host = self.server
        assert isinstance(host, Host)
        if not self.path.endswith("/0/c/0/0/0") or host.trap == "plain":
            super().do_GET()
            return
        self.send_response(200)
        if host.trap == "announced":
            self.send_header("Content-Length", str(1 << 34))
        elif host.trap == "packed":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            while host.sent < 1 << 26:
                self.wfile.write(host.part)
                host.sent += len(host.part)
                if host.trap == "packed":
                    break
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("trap", ["plain", "announced", "endless", "packed"])
def test_of_a_chunk_at_a_web_server_no_more_is_fetched_than_it_can_have(tmp_path, trap):
    write_slide(tmp_path / "slide.zarr")
    with Host(tmp_path, trap) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        with open_slide(f"http://127.0.0.1:{host.server_address[1]}/slide.zarr") as slide:
            tracemalloc.start()
            pixels = slide.read_level(0, 0, 0, 600, 600)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert (slide.unreadable > 0) == (trap != "plain")
        host.shutdown()
    with open_slide(tmp_path / "slide.zarr") as here:
        expected = here.read_level(0, 0, 0, 600, 600)
    np.testing.assert_array_equal(pixels[256:], expected[256:])
    assert peak < 1 << 25
    assert host.sent < 1 << 25


def test_of_a_chunk_in_a_bucket_no_more_is_fetched_than_it_can_have(s3, tmp_path, monkeypatch):
    import s3fs

    bucket = s3fs.S3FileSystem()
    bucket.put(str(write_slide(tmp_path / "slide.zarr")), f"{s3}/large.zarr", recursive=True)
    bucket.pipe_file(f"{s3}/large.zarr/0/c/0/0/0", bytes(1 << 24))
    fetched = counted(monkeypatch, "_cat_file")
    with open_slide(f"{s3}/large.zarr") as slide:
        slide.read_level(0, 0, 0, 600, 600)
        assert slide.unreadable > 0
    assert 0 < max(fetched) < 1 << 20


def counted(monkeypatch, method: str, ending: str = "") -> list[int]:
    """Sizes of what is read from a bucket from now on."""
    import s3fs

    plain, sizes = getattr(s3fs.S3FileSystem, method), []

    async def counting(self, path, *args, **kwargs):
        data = await plain(self, path, *args, **kwargs)
        if path.endswith(ending):
            sizes.append(len(data))
        return data

    monkeypatch.setattr(s3fs.S3FileSystem, method, counting)
    s3fs.S3FileSystem.clear_instance_cache()  # instances hold methods of before
    return sizes


def test_of_a_journal_in_a_bucket_only_what_the_array_lacks_is_read(s3, tmp_path, monkeypatch):
    import s3fs

    write_study(tmp_path / "study", write_slide(tmp_path / "slide.zarr"))
    (entry,) = Study.open(tmp_path / "study").slides()
    corrections = entry.all_corrections()
    corrections.compact()
    whole = corrections.journal_bytes
    entry.save_corrections_region(0, 0, np.full((2, 2), 1, np.uint8))
    expected, stroke = corrections[:], corrections.journal_bytes - whole
    s3fs.S3FileSystem().put(str(tmp_path / "study"), f"{s3}/painted", recursive=True)
    (there,) = Study.open(f"{s3}/painted").slides()
    fetched = counted(monkeypatch, "_cat_file", "corrections.journal")
    np.testing.assert_array_equal(there.all_corrections()[:], expected)
    assert fetched == [24, 24, stroke]  # its head, which names it


def test_a_host_that_keeps_silent_is_given_up_on(monkeypatch):
    import socket

    monkeypatch.setattr(urls, "TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(SlideError, match="cannot be read"):
            open_slide(f"http://127.0.0.1:{port}/slide.zarr")


def test_without_the_packages_the_sentence_says_what_to_install(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("zarr.storage.FsspecStore.from_url", missing)
    with pytest.raises(SlideError, match=r"napari-histodistill\[cloud\]"):
        open_slide("s3://bucket/slide.zarr")
