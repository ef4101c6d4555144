"""LayerCAM-AE: GradCAM-AE with LayerCAM maps, which keep what each pixel contributes.

    L_ij = ReLU(Σ_k ReLU(∂y/∂A_k,ij) · A_k,ij), then as in `tffl.defenses.gradcam_ae`

A Novel Defense Against Poisoning Attacks on Federated Learning: LayerCAM Augmented with Autoencoder
    Jingjing Zheng, Xin Yuan, Kai Li, Wei Ni, Eduardo Tovar, Jon Crowcroft. 2024. Also known as
    FedCAMAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tffl.defenses.gradcam_ae import GradCamAe
from tffl.explain.maps import Method


@dataclass(frozen=True)
class LayerCamAe(GradCamAe):
    """Flags LayerCAM maps that an autoencoder fails to rebuild, as published.

    >>> LayerCamAe().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: LayerCamAe looks at clients' models: give model=
    """

    method: ClassVar[Method] = "layer-cam"
    reference: ClassVar[str] = (
        "Zheng et al., A Novel Defense Against Poisoning Attacks on Federated Learning: LayerCAM "
        "Augmented with Autoencoder (FedCAMAE), 2024"
    )
