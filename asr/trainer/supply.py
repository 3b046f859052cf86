"""Where a training's batches come from: its source, without what CTC cannot learn, and loaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from asr.augment import WaveformAugment
from asr.data.batch import Batch, BatchLoader
from asr.data.dataset import RequestDataset, SpeechDataset
from asr.data.manifest import Utterance
from asr.data.source import ManifestSource, Ranks, Windows
from asr.data.splits import Splits
from asr.data.window import Tokens
from asr.finding import Finding
from asr.trainer.distributed import StopRequest, World
from asr.trainer.feed import Feed
from asr.trainer.labels import check_feasible, check_misfits, report_misfits
from asr.trainer.recipe import Recipe, Settings

GPU_WORKERS = 4  # loading processes a rank


class Supply:
    """The data of one training, as one rank reads it.

    Args:
        settings: how the training goes.
        world: device and ranks.
        recipe: what is trained, with the recogniser on its device.
        left_out_file: where utterances that are left out are listed; None on other ranks than 0.
        resume: the list goes on.
        stop: while it is made, no batch is waited for.

    Attributes:
        misfits: of a manifest, what is left out before the training.

    Raises:
        ValueError: of a manifest, nothing left to learn from, or too much left out.
    """

    def __init__(
        self,
        settings: Settings,
        world: World,
        recipe: Recipe,
        left_out_file: Path | None,
        resume: bool,
        stop: StopRequest,
    ) -> None:
        self.settings = settings
        self.stop = stop
        self.recipe = recipe
        self.recognizer = recipe.recognizer
        self.ranks = Ranks(world.rank, world.size)
        self.device = world.device.type
        self.misfits: list[Finding] = []
        self.manifest: Windows | None = None  # labelled once, and the same for all ranks
        if isinstance(recipe.splits, Splits):
            self.manifest = self._open_manifest(recipe.splits)
        if left_out_file is not None:
            report_misfits(self.misfits, left_out_file, resume)
        if self.manifest is not None:
            check_misfits(self.misfits, self.manifest.totals.utterances, settings.max_left_out)

    def feed(self) -> Feed:
        """The windows of the training.

        Raises:
            ValueError: an utterance longer than a batch, too few shards for the ranks.
        """
        settings = self.settings
        windows = self._open(self.ranks)
        longest_s = windows.totals.longest_s
        if longest_s > settings.batch_duration_s:
            raise ValueError(
                f"the longest training utterance lasts {longest_s:.2f} s, expected at most "
                f"batch_duration_s = {settings.batch_duration_s:g} s"
            )
        return Feed(
            windows=windows,
            loader=self._loader(self._requests(self.recipe.augment.waveform)),
            seed=settings.seed,
            batch_duration_s=settings.batch_duration_s,
            accumulate=settings.accumulate,
            sort_first_epoch=settings.sort_first_epoch,
            ranks=self.ranks,
        )

    def unvaried_batches(self, feed: Feed) -> Iterator[Batch]:
        """Of the first window, as one rank alone would have them: the same on every rank."""
        alone = replace(feed, windows=self._open(Ranks()), ranks=Ranks())
        first = alone.of(alone.windows.load(0, 0), 0)
        loader = self._loader(self._requests(None))
        plan = [batch for group in first.groups for batch in group]
        try:
            yield from loader.load(first.window.requests(0, plan))
        finally:
            loader.close()

    def dev_loader(self) -> BatchLoader:
        """Of the utterances to validate on, by (epoch, position)."""
        dev, encode = self.recipe.splits.dev, self.recognizer.tokenizer.encode
        rate = self.recognizer.features.sample_rate
        return self._loader(SpeechDataset(dev, [encode(each.text) for each in dev], rate))

    def _open_manifest(self, splits: Splits) -> Windows:
        """The utterances that can be learnt from; the others are noted."""
        windows = ManifestSource(splits.train).open(
            self.recognizer.tokenizer, self._gate, self.settings.seed, self.ranks
        )
        self.misfits = [*splits.left_out, *windows.left_out]
        return windows

    def _open(self, ranks: Ranks) -> Windows:
        splits = self.recipe.splits
        if isinstance(splits, Splits):
            assert self.manifest is not None, "opened when the supply was made"
            return self.manifest
        return splits.train.open(self.recognizer.tokenizer, self._gate, self.settings.seed, ranks)

    def _gate(
        self, utterances: Sequence[Utterance], tokens: Sequence[Tokens]
    ) -> list[Finding | None]:
        """What CTC cannot learn from."""
        waveform = self.recipe.augment.waveform
        fastest = waveform.fastest if waveform else 1.0
        return check_feasible(utterances, tokens, self.recognizer, fastest)

    def _requests(self, augment: WaveformAugment | None) -> RequestDataset:
        return RequestDataset(self.recognizer.features.sample_rate, self.settings.seed, augment)

    def _loader(self, dataset: SpeechDataset | RequestDataset) -> BatchLoader:
        workers = self.settings.num_workers
        if workers is None:
            workers = 0 if self.device == "cpu" else GPU_WORKERS
        return BatchLoader(
            dataset, workers, pin_memory=self.device == "cuda", is_stop=lambda: self.stop.is_made
        )
