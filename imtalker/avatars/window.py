"""Small parts of a picture: what is painted only around the eyes or the mouth need not be computed elsewhere."""

from __future__ import annotations

import torch

from imtalker.avatars.identity import Looks
from imtalker.avatars.pose import Point, Pose
from imtalker.avatars.shapes import Field, Number


class Window:
    """A rectangle of the face, for each picture of a batch the pixels around it; all of one size.

    ``left, top, right, bottom`` are canonical and inside the rim of the face's ellipsoid enlarged ``radius`` times.
    """

    def __init__(
        self, looks: Looks, pose: Pose, size: int, box: tuple[Number, Number, Number, Number], radius: Number
    ) -> None:
        left, top, right, bottom = (b + torch.zeros_like(looks.face_width) for b in box)
        third = torch.arange(4, device=left.device) / 3
        across = left + (right - left) * third[None, None, :]
        down = top + (bottom - top) * third[None, :, None]
        across, down = torch.broadcast_tensors(across, down)
        x, y = pose.from_ball(across, down, radius)
        corners = torch.stack(pose.from_body(*pose.from_head(x, y)), -1).flatten(1, 2)
        pixels = (corners + 1) * (size / 2)
        start = pixels.amin(1).floor().long() - 1
        width, height = ((pixels.amax(1).ceil().long() + 1 - start).amax(0)).clamp(max=size).tolist()
        first = torch.minimum(start.clamp(min=0), start.new_tensor([size - width, size - height]))
        columns = first[:, :1] + torch.arange(width, device=left.device)
        rows = first[:, 1:] + torch.arange(height, device=left.device)
        self._shape = height, width
        self._index = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)
        middles = ((2 * columns + 1) / size - 1)[:, None, :], ((2 * rows + 1) / size - 1)[:, :, None]
        self.grid: Point = (middles[0].expand(-1, height, -1), middles[1].expand(-1, -1, width))
        """The middles of the pixels in the picture, [B, h, w]."""

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
