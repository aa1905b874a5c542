"""What a training leaves to look at: TensorBoard's events, and the pictures of its validations as files."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from PIL import Image

from imtalker.training.loop import VALIDATION, Progress, Validation

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "tensorboard"
PICTURES = "pictures"


def tensorboard_installed() -> bool:
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


class Journal:
    """Written to ``folder`` in the process that reports. Without TensorBoard there are pictures alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def stepped(self, step: int) -> None:
        """Opens the events where the run begins or goes on; those of steps that come again are taken back."""
        if self._events is None and tensorboard_installed():
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self._folder / EVENTS), purge_step=step + 1)

    def reported(self, progress: Progress) -> None:
        if self._events is not None:
            values = {"steps_a_second": progress.steps_a_second, **progress.terms}
            for name, value in values.items():
                self._events.add_scalar(f"training/{name}", value, progress.step)

    def validated(self, validation: Validation) -> None:
        """Losses, and the contact sheet as ``pictures/<step>.png``."""
        sheet = validation.pictures
        if self._events is not None:
            for name, value in validation.losses.items():
                self._events.add_scalar(VALIDATION + name, value, validation.step)
            if sheet is not None:
                self._events.add_image("pictures", sheet, validation.step)
            self._events.flush()
        if sheet is not None:
            path = self._folder / PICTURES / f"{validation.step:08}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy()).save(path)
