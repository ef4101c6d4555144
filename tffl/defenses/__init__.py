"""Defenses of a federated server: one file each, named in a config by `defense.name`."""

from collections.abc import Mapping
from typing import Any

from tffl.core.lazy import lazy
from tffl.core.registry import Registry
from tffl.defenses.base import Defense, Server, Verdict

defenses = Registry(
    "defense",
    {
        "none": "tffl.defenses.none:FedAvg",
        "all-of": "tffl.defenses.combination:AllOf",
        "any-of": "tffl.defenses.combination:AnyOf",
        "auror": "tffl.defenses.auror:Auror",
        "bias-anomaly": "tffl.defenses.bias_anomaly:BiasAnomaly",
        "bucketing": "tffl.defenses.bucketing:Bucketing",
        "bulyan": "tffl.defenses.bulyan:Bulyan",
        "cam-consensus": "tffl.defenses.cam_consensus:CamConsensus",
        "centered-clipping": "tffl.defenses.centered_clipping:CenteredClipping",
        "dnc": "tffl.defenses.dnc:DnC",
        "faa-dl": "tffl.defenses.faa_dl:FaaDl",
        "flame": "tffl.defenses.flame:Flame",
        "flcert": "tffl.defenses.flcert:FLCert",
        "fldetector": "tffl.defenses.fldetector:FLDetector",
        "fltrust": "tffl.defenses.fltrust:FLTrust",
        "foolsgold": "tffl.defenses.foolsgold:FoolsGold",
        "gan-audit": "tffl.defenses.gan_audit:GanAudit",
        "geometric-median": "tffl.defenses.geometric_median:GeometricMedian",
        "gradcam-ae": "tffl.defenses.gradcam_ae:GradCamAe",
        "gradcam-krum": "tffl.defenses.gradcam_krum:GradCamKrum",
        "krum": "tffl.defenses.krum:Krum",
        "layercam-ae": "tffl.defenses.layercam_ae:LayerCamAe",
        "median": "tffl.defenses.median:Median",
        "multi-krum": "tffl.defenses.multi_krum:MultiKrum",
        "nnm": "tffl.defenses.nnm:NearestNeighborMixing",
        "norm-clipping": "tffl.defenses.norm_clipping:NormClipping",
        "probe-loss": "tffl.defenses.probe_loss:ProbeLoss",
        "shield": "tffl.defenses.shield:Shield",
        "signguard": "tffl.defenses.signguard:SignGuard",
        "statistics-consensus": "tffl.defenses.statistics_consensus:StatisticsConsensus",
        "trimmed-mean": "tffl.defenses.trimmed_mean:TrimmedMean",
        "update-consensus": "tffl.defenses.update_consensus:UpdateConsensus",
    },
    base="tffl.defenses.base:Defense",
)


def create_defense(name: str, options: Mapping[str, Any]) -> Defense:
    """Builds a defense, or one behind others as in `nnm+krum`, from user-given options.

    Raises:
      UsageError: A name or an option does not exist, a value is out of its range, or the parts do
        not go together.
    """
    from tffl.defenses.wrapper import wrap

    return wrap(name, defenses.create_parts(name, options))


_HOMES = {
    **defenses.homes(),
    "Detector": "tffl.defenses.detector",
    "RobustMean": "tffl.defenses.robust_mean",
    "Selection": "tffl.defenses.selection",
    "Session": "tffl.defenses.session",
}

__all__ = [*sorted(_HOMES), "Defense", "Server", "Verdict", "create_defense", "defenses"]
__getattr__ = lazy(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
