"""VoVNet variants and how each source codebase builds them."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class OSARules:
    """Details in which the source codebases' VoVNets differ.

    Args:
        ese: blocks of a stage that end with eSE: "none", "every" or "last".
        hard_gate: eSE's gate is relu6(x + 3) / 6 instead of a sigmoid.
        shortcut: blocks that add their input to their result. "later": all but the first of a stage. "equal": those
            whose input and output channels agree. "none": no block.
        stem_strides: strides of the three convolutions of the stem.
        padded_pooling: stages begin with 3x3 max pooling with padding 1 instead of `CeilMaxPool`. Stage 2 pools only
            if the stem has not reached stride 4.
        pointwise_bias: the 1x1 convolutions before a norm have a bias.
        init_mode: mode of the kaiming normal initialization, "fan_in" or "fan_out".
    """

    ese: str = "none"
    hard_gate: bool = True
    shortcut: str = "later"
    stem_strides: tuple[int, ...] = (2, 1, 2)
    padded_pooling: bool = False
    pointwise_bias: bool = False
    init_mode: str = "fan_in"


V1 = OSARules()
DETECTRON2 = OSARules(ese="every")
TIMM = OSARules(ese="last", init_mode="fan_out")
TIMM_V1 = OSARules(shortcut="none", init_mode="fan_out")
MMDETECTION = OSARules(
    ese="every",
    hard_gate=False,
    shortcut="equal",
    stem_strides=(2, 1, 1),
    padded_pooling=True,
    pointwise_bias=True,
    init_mode="fan_out",
)


@dataclass(frozen=True)
class OSASpec:
    """Sizes of a variant.

    Args:
        conv_channels: channels of the 3x3 convolutions, stages 2 to 5.
        out_channels: channels after aggregation, stages 2 to 5. These are the channels of the maps.
        blocks: OSA blocks, stages 2 to 5.
        layers: 3x3 convolutions of a block.
        stem: channels of the three convolutions of the stem.
        depthwise: all 3x3 convolutions but the very first are depthwise, each with a 1x1 after it.
        rules: how the variant's source codebase builds it.
    """

    conv_channels: tuple[int, ...]
    out_channels: tuple[int, ...]
    blocks: tuple[int, ...]
    layers: int = 5
    stem: tuple[int, ...] = (64, 64, 128)
    depthwise: bool = False
    rules: OSARules = V1


_CONV, _OUT = (128, 160, 192, 224), (256, 512, 768, 1024)
_SLIM_CONV, _SLIM_OUT = (64, 80, 96, 112), (112, 256, 384, 512)
_DEPTHWISE = {"stem": (64, 64, 64), "depthwise": True}

SIZES = {
    "19-slim-dw1": OSASpec(_SLIM_CONV, (56, 128, 192, 256), (1, 1, 1, 1), 1, **_DEPTHWISE),
    "19-slim-dw": OSASpec(_SLIM_CONV, _SLIM_OUT, (1, 1, 1, 1), 3, **_DEPTHWISE),
    "19-slim": OSASpec(_SLIM_CONV, _SLIM_OUT, (1, 1, 1, 1), 3),
    "19-dw": OSASpec(_CONV, _OUT, (1, 1, 1, 1), 3, **_DEPTHWISE),
    "19": OSASpec(_CONV, _OUT, (1, 1, 1, 1), 3),
    "27": OSASpec(_SLIM_CONV, (128, 256, 384, 512), (1, 1, 1, 1)),
    "39": OSASpec(_CONV, _OUT, (1, 1, 2, 2)),
    "57": OSASpec(_CONV, _OUT, (1, 1, 4, 3)),
    "69": OSASpec(_CONV, _OUT, (1, 1, 6, 3)),
    "75": OSASpec(_CONV, _OUT, (1, 2, 6, 3)),
    "93": OSASpec(_CONV, _OUT, (1, 3, 8, 3)),
    "99": OSASpec(_CONV, _OUT, (1, 3, 9, 3)),
}

VARIANTS = {
    **{f"V-{size}": SIZES[size] for size in ("27", "39", "57", "69", "75", "93")},
    **{
        f"V2-{size}": replace(SIZES[size], rules=DETECTRON2)
        for size in ("19-slim-dw", "19-slim", "19-dw", "19", "39", "57", "99")
    },
    **{
        f"V2-{size}-mmdet": replace(SIZES[size], rules=MMDETECTION)
        for size in ("19-slim-dw1", "19-slim-dw", "19-slim", "19", "39", "57", "99")
    },
    # timm's own names
    "ese_vovnet19b_slim_dw": replace(SIZES["19-slim-dw"], rules=TIMM),
    "ese_vovnet19b_slim": replace(SIZES["19-slim"], rules=TIMM),
    "ese_vovnet19b_dw": replace(SIZES["19-dw"], rules=TIMM),
    "ese_vovnet39b": replace(SIZES["39"], rules=TIMM),
    "ese_vovnet57b": replace(SIZES["57"], rules=TIMM),
    "ese_vovnet99b": replace(SIZES["99"], rules=TIMM),
    "vovnet39a": replace(SIZES["39"], rules=TIMM_V1),
    "vovnet57a": replace(SIZES["57"], rules=TIMM_V1),
}
