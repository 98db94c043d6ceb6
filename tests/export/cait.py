"""CaiT in plain torch, as timm writes it (Touvron et al. 2021, "Going deeper with Image Transformers"), very small."""

import torch
from torch import Tensor, nn

WIDTH, HEADS, PATCHES = 16, 4, 16


class TalkingHeads(nn.Module):
    """Attention between patches; linear layers over the heads stand before and behind the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.proj_l, self.proj_w = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output [B, N, D], and what multiplies the values [B, H, N, N]."""
        batch, length, width = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0] / 2, qkv[1], qkv[2]
        attn = query @ key.transpose(-2, -1)
        attn = self.proj_l(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        attn = attn.softmax(dim=-1)
        attn = self.proj_w(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.proj((attn @ value).transpose(1, 2).reshape(batch, length, width)), attn


class ClassAttention(nn.Module):
    """The class token's attention to itself and the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output [B, 1, D] and the weights [B, H, 1, N]."""
        batch, length, width = x.shape
        query = self.q(x[:, 0]).unsqueeze(1).reshape(batch, 1, HEADS, width // HEADS).permute(0, 2, 1, 3)
        key = self.k(x).reshape(batch, length, HEADS, width // HEADS).permute(0, 2, 1, 3)
        value = self.v(x).reshape(batch, length, HEADS, width // HEADS).permute(0, 2, 1, 3)
        attn = (query / 2 @ key.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ value).transpose(1, 2).reshape(batch, 1, width)), attn


class Cait(nn.Module):
    """Two layers of talking heads over 16 patches of 8 pixels, then two of class attention; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, WIDTH, 8, 8)
        self.cls_token, self.pos_embed = (nn.Parameter(torch.zeros(1, n, WIDTH)) for n in (1, PATCHES))
        self.blocks = nn.ModuleList(TalkingHeads() for _ in range(2))
        self.blocks_token_only = nn.ModuleList(ClassAttention() for _ in range(2))
        self.gammas = nn.ParameterList(torch.ones(WIDTH) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)

    def explain(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits [B, 3] and what multiplies the values of each layer."""
        x = self.patch_embed(pixel_values).flatten(2).transpose(1, 2) + self.pos_embed
        weights = list[Tensor]()
        for block, norm, gamma in zip(self.blocks, self.norms[:2], self.gammas[:2], strict=True):
            more, seen = block(norm(x))
            x, weights = x + gamma * more, [*weights, seen]
        token = self.cls_token.expand(x.shape[0], -1, -1)
        for block, norm, gamma in zip(self.blocks_token_only, self.norms[2:], self.gammas[2:], strict=True):
            more, seen = block(norm(torch.cat((token, x), dim=1)))
            token, weights = token + gamma * more, [*weights, seen]
        return self.head(self.norm(token)[:, 0]), weights

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return the logits."""
        return self.explain(pixel_values)[0]
