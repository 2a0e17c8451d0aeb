"""Tiles computed by the workers of a dask cluster; importing this needs neither dask nor torch.

Workers read tiles and run the model. They send back maps on the working grid, and one process, the one that asked,
puts them into the study: no two ever write the same chunk, and the study need not be reachable from the workers.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_histodistill.errors import HistodistillError
from napari_histodistill.heap import keep_heap
from napari_histodistill.jobs import InlineControl
from napari_histodistill.nets.card import model_folder, read_card
from napari_histodistill.nets.threads import spare_cores, torch_threads
from napari_histodistill.predict.engine import PredictedTile, predicted
from napari_histodistill.predict.stain import Recolouring, recoloured
from napari_histodistill.slide import open_slide

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_histodistill.jobs import JobControl
    from napari_histodistill.nets import Model
    from napari_histodistill.predict.engine import Work
    from napari_histodistill.predict.tiling import Tiling
    from napari_histodistill.slide import Slide

MOST_TILES = 8
"""Of one task, which is what a GPU takes at once."""
TASKS_EACH = 4
"""A slide is cut into about this many tasks a worker, so that none waits long for the last one."""
RETRIES = 2
"""Of a task that failed with an error; one whose worker died goes to another as often as the scheduler allows."""
POLL_S = 1.0
LONELY_S = 60.0
"""How long to wait for a worker where there is none."""
CONNECT_S = 10.0


class ClusterError(HistodistillError):
    """A cluster that cannot be used as asked; the message says why and what to do."""


@contextmanager
def connected(scheduler: str = "", local_workers: int = 0) -> Iterator[ClusterEngine]:
    """An engine on the cluster at an address (``tcp://host:8786``), or on worker processes of this machine.

    Raises
    ------
    ClusterError
        If dask.distributed is not installed, or no scheduler answers.
    """
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise ClusterError(
            "A cluster needs dask.distributed, which is not installed: pip install 'napari-histodistill[cluster]'."
        ) from error
    # Threads that gather results at the same time leave distributed as dask's scheduler for the rest of the process:
    # what it is now, or that it is not set, comes back however this ends.
    with config.set(scheduler=config.get("scheduler", None)):
        if not scheduler:
            threads = max(1, spare_cores() // local_workers)
            with (
                LocalCluster(local_workers, threads_per_worker=threads, dashboard_address=None) as cluster,
                Client(cluster, set_as_default=False) as client,
            ):
                yield ClusterEngine(client)
            return
        try:
            client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"No dask scheduler answers at {scheduler}: start one ('dask scheduler'), or check the address."
            ) from error
        with client:
            yield ClusterEngine(client)


class ClusterEngine:
    """Computes tiles on the workers of a cluster; an `Engine` that several threads may use at once.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def predicted(self, work: Work, control: JobControl) -> Generator[PredictedTile]:
        """The tiles as they come.

        Raises
        ------
        HistodistillError
            What a worker says, with its address; or if the workers die one after another, or none is left.
        JobCancelled
            From ``control``.
        """
        from distributed import wait

        workers = self._wait_for_workers(work, control)
        size = min(MOST_TILES, -(-len(work.tiles) // (TASKS_EACH * len(workers))))
        waiting = [work.tiles[i : i + size] for i in range(0, len(work.tiles), size)][::-1]
        slide = _slide_on_workers(work, work.request.threads or min(workers.values()))
        running: set[Any] = set()
        try:
            while waiting or running:
                control.checkpoint()
                while waiting and len(running) < 2 * len(workers):
                    running.add(self._client.submit(predict_tiles, slide, waiting.pop(), pure=False, retries=RETRIES))
                try:
                    with _told(work), self._client.as_current():
                        done = wait(running, timeout=POLL_S, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    workers = self._wait_for_workers(work, control)
                    continue
                running -= done
                for future in done:
                    with _told(work):
                        tiles: list[PredictedTile] = future.result()
                    yield from tiles
        finally:
            for future in running:
                future.release()  # nobody waits for it any more: the scheduler drops what has not begun

    def _wait_for_workers(self, work: Work, control: JobControl) -> dict[str, int]:
        """Threads of each worker, by address."""
        for _ in range(max(1, round(LONELY_S / POLL_S))):
            control.checkpoint()
            try:
                with _told(work):
                    workers: dict[str, int] = self._client.nthreads()
            except TimeoutError:
                continue
            if workers:
                return workers
            control.progress(0, 0, "Waiting for a worker")
            threading.Event().wait(POLL_S)
        raise ClusterError(
            f"The cluster has no worker for {work.slide.name}: start some ('dask worker ADDRESS'), then resume."
        )


@contextmanager
def _told(work: Work) -> Iterator[None]:
    """Make sentences of what dask raises where workers die or the scheduler is gone; a timeout stays one."""
    from distributed import CancelledError, KilledWorker

    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"A task of {work.slide.name} ended worker after worker, as happens when their memory runs out: start "
            "fewer or larger workers, then resume."
        ) from error
    except TimeoutError:
        raise
    except (CancelledError, OSError) as error:
        raise ClusterError(f"The dask scheduler is gone ({error}): start it again, then resume.") from error


# What follows runs on the workers.


@dataclass(frozen=True)
class SlideOnWorkers:
    """What a worker needs to know of a slide; see `Work`.

    Attributes
    ----------
    path, mpp, fingerprint
        Of the slide, which must lie at the same path for every worker.
    tiling : Tiling
    model, model_id, device : str
        The model, by a name or folder that every worker knows; checked to be the same.
    threads : int
        To compute with on a CPU: the same number everywhere, since the last bits of a result depend on it.
    recolour : Recolouring or None
    """

    path: Path
    mpp: float | tuple[float, float] | None
    fingerprint: str
    tiling: Tiling
    model: str
    model_id: str
    device: str
    threads: int
    recolour: Recolouring | None


_ONE_AT_A_TIME = threading.Lock()
"""A worker computes one task at a time however many threads dask gave it: torch uses them all."""


def predict_tiles(work: SlideOnWorkers, tiles: list[int]) -> list[PredictedTile]:
    """Compute tiles on this worker; their maps are on the working grid.

    Raises
    ------
    HistodistillError
        If slide or model are not here, or not those that are meant; it names this worker.
    """
    from distributed import get_worker

    worker = get_worker()
    with _ONE_AT_A_TIME:
        try:
            keep_heap()
            slide = _slide(work.path, work.mpp, work.fingerprint)
            model = recoloured(_model(work.model, work.model_id, _device(work.device, worker.name)), work.recolour)
            with torch_threads(work.threads):
                computed = predicted(tiles, slide=slide, tiling=work.tiling, model=model, control=InlineControl())
                return [replace(tile, values=tile.map(work.tiling), reduced=True) for tile in computed]
        except (HistodistillError, OSError) as error:
            raise HistodistillError(f"On worker {worker.address}: {error}") from error


def _slide_on_workers(work: Work, threads: int) -> SlideOnWorkers:
    request, slide, folder = work.request, work.slide, model_folder(work.request.model)
    return SlideOnWorkers(
        path=slide.path.absolute(),
        mpp=request.mpp,
        fingerprint=slide.fingerprint,
        tiling=work.tiling,
        model=str(folder.absolute()) if folder == Path(request.model) else request.model,
        model_id=work.model_id,
        device=request.device,
        threads=threads,
        recolour=work.recolour,
    )


@lru_cache(maxsize=4)
def _slide(path: Path, mpp: float | tuple[float, float] | None, fingerprint: str) -> Slide:
    slide = open_slide(path, mpp=mpp)
    if slide.fingerprint != fingerprint:
        raise ClusterError(f"{path} is another file than where the work was asked for: bring both up to date.")
    return slide


@lru_cache(maxsize=2)
def _model(where: str, model_id: str, device: str) -> Model:
    from napari_histodistill.nets import load_model

    card = read_card(where)
    if f"{card.name} {card.digest(model_folder(where))}" != model_id:
        raise ClusterError(f"The model {where} is another one than where the work was asked for: install the same.")
    return load_model(where, device)


def _device(wanted: str, worker: object) -> str:
    """The device of a worker: of several GPUs the one that the number at the end of the worker's name picks."""
    import torch

    count = torch.cuda.device_count()
    if wanted not in {"auto", "cuda"} or count < 2:
        return wanted
    number = re.search(r"\d+$", str(worker))
    return f"cuda:{int(number[0]) % count if number else 0}"
