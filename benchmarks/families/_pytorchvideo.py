"""PyTorchVideo: its video networks, with the heads' pools fitted to small clips."""

from functools import partial

import torch

from families._member import Member, noise


def members() -> tuple[Member, ...]:
    """All networks."""
    from pytorchvideo.models import create_resnet, csn, hub, r2plus1d, slowfast, vision_transformers, x3d

    clip = noise((1, 3, 8, 64, 64))
    small_x3d = partial(x3d.create_x3d, input_clip_length=4, input_crop_size=64)
    still = partial(hub.efficient_x3d_xs, pretrained=False)
    return (
        Member("X3D", small_x3d, noise((1, 3, 4, 64, 64))),
        Member("Efficient X3D XS", still, noise((1, 3, 4, 160, 160))),
        Member(
            "SlowFast R50", partial(slowfast.create_slowfast, head_pool_kernel_sizes=((2, 2, 2), (8, 2, 2))), _paths
        ),
        Member("CSN R50", partial(csn.create_csn, head_pool_kernel_size=(1, 4, 4)), clip),
        Member("R(2+1)D R50", partial(r2plus1d.create_r2plus1d, head_pool_kernel_size=(2, 2, 2)), clip),
        Member(
            "Slow R50", partial(create_resnet, stem_conv_kernel_size=(1, 7, 7), head_pool_kernel_size=(8, 2, 2)), clip
        ),
        Member("C2D R50", partial(hub.c2d_r50, pretrained=False, head_pool_kernel_size=(4, 2, 2)), clip),
        Member("I3D R50", partial(hub.i3d_r50, pretrained=False, head_pool_kernel_size=(4, 2, 2)), clip),
        Member(
            "MViT B",
            partial(
                vision_transformers.create_multiscale_vision_transformers,
                spatial_size=64,
                temporal_size=8,
                embed_dim_mul=[[1, 2.0], [3, 2.0]],
                atten_head_mul=[[1, 2.0], [3, 2.0]],
                pool_q_stride_size=[[1, 1, 2, 2], [3, 1, 2, 2]],
                pool_kv_stride_adaptive=[1, 4, 4],
                pool_kvq_kernel=[3, 3, 3],
                depth=4,
                head_num_classes=10,
            ),
            clip,
            attention=True,
        ),
    )


def _paths() -> tuple[list[torch.Tensor]]:
    """The slow and the fast pathway's clips."""
    return ([torch.randn(1, 3, 2, 64, 64), torch.randn(1, 3, 8, 64, 64)],)
