"""Small parts of a picture: what is painted only around the eyes or the mouth need not be computed elsewhere."""

from __future__ import annotations

import torch

from imtalker.avatars.identity import Looks
from imtalker.avatars.pose import Point, Pose
from imtalker.avatars.shapes import Field, Number


class Window:
    """A rectangle of ``width`` x ``height`` pixels of each picture of a batch.

    ``first`` [B, 2]: the column and row at which it would start; rectangles over the edge are moved inside.
    """

    def __init__(self, first: torch.Tensor, width: int, height: int, size: int) -> None:
        first = torch.minimum(first.clamp(min=0), first.new_tensor([size - width, size - height]))
        columns = first[:, :1] + torch.arange(width, device=first.device)
        rows = first[:, 1:] + torch.arange(height, device=first.device)
        self._shape = height, width
        self._index = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)
        x, y = ((2 * columns + 1) / size - 1)[:, None, :], ((2 * rows + 1) / size - 1)[:, :, None]
        self.grid: Point = (x.expand(-1, height, -1), y.expand(-1, -1, width))
        """The middles of the pixels in the picture, [B, h, w]."""

    @classmethod
    def around(
        cls, looks: Looks, pose: Pose, size: int, box: tuple[Number, Number, Number, Number], radius: Number
    ) -> Window:
        """The pixels around a part of the face.

        ``box`` is its left, top, right and bottom on the canonical plane, inside the rim of the face's ellipsoid
        enlarged ``radius`` times.
        """
        left, top, right, bottom = (edge + torch.zeros_like(looks.face_width) for edge in box)
        thirds = torch.arange(4, device=left.device) / 3
        across = left + (right - left) * thirds[None, None, :]
        down = top + (bottom - top) * thirds[None, :, None]
        across, down = torch.broadcast_tensors(across, down)
        x, y = pose.from_ball(across, down, radius)
        points = torch.stack(pose.from_body(*pose.from_head(x, y)), -1).flatten(1, 2)
        pixels = (points + 1) * (size / 2)
        first = pixels.amin(1).floor().long() - 1
        width, height = (pixels.amax(1).ceil().long() + 1 - first).amax(0).clamp(max=size).tolist()
        return cls(first, width, height, size)

    @classmethod
    def below(cls, pose: Pose, size: int, top: float) -> Window:
        """The rows below a height of the body, over the whole width."""
        _, y = pose.from_body(torch.zeros_like(pose["scale"]), top + torch.zeros_like(pose["scale"]))
        row = ((y[:, 0] + 1) * (size / 2)).floor().long().clamp(0, size - 1)
        return cls(torch.cat([torch.zeros_like(row), row], 1), size, size - int(row.min()), size)

    def cut(self, picture: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, h, w]."""
        channels = picture.shape[1]
        index = self._index[:, None].expand(-1, channels, -1)
        return picture.flatten(2).gather(2, index).unflatten(2, self._shape)

    def put(self, part: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        """The picture [B, C, H, W] with its part [B, C, h, w] replaced."""
        index = self._index[:, None].expand(-1, picture.shape[1], -1)
        return picture.flatten(2).scatter(2, index, part.flatten(2)).unflatten(2, picture.shape[2:])

    def alone(self, part: Field, size: int) -> torch.Tensor:
        """A picture [B, 1, size, size] of a part [B, h, w] and nothing elsewhere."""
        return self.put(part[:, None], part.new_zeros(part.shape[0], 1, size, size))
