"""detectron2's ViT and simple feature pyramid with the weights of ours."""

from detectron2.modeling import SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn

from backbones.dense import DenseViT
from tasks.coco.pyramid import LEVELS, SimplePyramid
from tasks.coco.recipes import CocoRecipe


class Detectron2Pyramid(nn.Module):
    """Normalised images (B, 3, S, S) to the five levels, as ViTDet's model makes them."""

    def __init__(self, recipe: CocoRecipe, vit: DenseViT, pyramid: SimplePyramid) -> None:
        super().__init__()
        depth = range(vit.depth)
        net = ViT(
            img_size=recipe.image_size,
            patch_size=vit.patch_size,
            embed_dim=vit.embed_dim,
            depth=vit.depth,
            num_heads=vit.num_heads,
            drop_path_rate=recipe.drop_path,
            norm_layer=lambda dim: nn.LayerNorm(dim, eps=1e-6),
            window_size=recipe.window_size or 0,
            window_block_indexes=[i for i in depth if i not in recipe.global_blocks],
            use_rel_pos=True,
            pretrain_img_size=vit.patch_size * round(vit.pos_embed.shape[1] ** 0.5),
            pretrain_use_cls_token=False,
        )
        net.load_state_dict(vit.state_dict())
        self.levels = SimpleFeaturePyramid(
            net=net,
            in_feature="last_feat",
            out_channels=recipe.pyramid_channels,
            scale_factors=(4.0, 2.0, 1.0, 0.5),
            norm="LN",
        )
        self.last = LastLevelMaxPool()
        for name, stage in zip(LEVELS, self.levels.stages, strict=False):
            given = getattr(pyramid, name).state_dict().values()
            stage.load_state_dict(dict(zip(stage.state_dict(), given, strict=True)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = list(self.levels(images).values())
        return dict(zip(LEVELS, [*maps, *self.last(maps[-1])], strict=True))
