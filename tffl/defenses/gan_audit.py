"""GAN audit: whose models err on generated audit images, which all models label by vote.

    D ← M_{t−1} + mean u, trained with G on X_aux                    (Algorithm 1, lines 6–7)
    from round d_iter: X = G(z), y_x = majority of f(x; M_{t−1} + u_k)         (lines 8–16)
    a_k = accuracy of M_{t−1} + u_k on (X, y);  accepted: a_k ≥ θ              (lines 17–23)
    M_t = M_{t−1} + S/CV, the mean of the accepted                             (line 24)

The generator is one of several sources of audit images; see `tffl.gan.sources`.

Detecting and mitigating poisoning attacks in federated learning using generative adversarial
networks
    Ying Zhao, Junjun Chen, Jiale Zhang, Di Wu, Michael Blumenstein, Shui Yu. Concurrency and
    Computation: Practice and Experience. Algorithm 1 and Section 4.

Left open by the paper, and chosen here: θ, for which it gives neither a value nor a rule (`rule`);
the mean S/CV counts every client once, here by its number of samples, as every detector does, which
is the same for equal shards; the average that D starts from leaves out updates that no server would
take, those below. The score is 1 − a_k.

If everybody is rejected, the global model stays as it is in that round. If no audit image counts,
because the voters agree on none, everybody is accepted. Updates that hold NaN or infinity, make a
moving variance of BatchNorm negative, whose square root is NaN, or make a model's outputs
non-finite are rejected at once, without a vote, the first two before d_iter as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from tffl.core import seeds, states
from tffl.core.errors import require
from tffl.core.layout import WeightLayout
from tffl.core.pixels import as_bytes
from tffl.core.updates import Updates
from tffl.core.verdict import AuditImages
from tffl.data.samples import Samples
from tffl.defenses.base import State, sample_shares
from tffl.defenses.detector import Detector, Evidence
from tffl.defenses.exports import DetectorExport
from tffl.defenses.parts.audit_endpoints import audit_endpoints
from tffl.defenses.parts.thresholds import Threshold
from tffl.defenses.parts.variances import negative_variances
from tffl.defenses.server import Server
from tffl.explain.maps import Probes
from tffl.gan import audit, sources
from tffl.gan.dcgan import Dcgan, GanOptions
from tffl.gan.inversion import Inversion
from tffl.gan.serving import AuditGraph
from tffl.models.scaling import of_bytes

if TYPE_CHECKING:
    import keras

RULE_OPTIONS = ("agreement", "balance", "rule", "theta", "k", "floor")
"""What decides whether an image counts and a model is suspect."""

PICTURED = 60
"""How many audit images a run keeps of each round."""

GAN, LAST = "gan", "last"
"""Where the state holds the GAN, and the last audit."""


def _text(value: Any) -> Any:
    """Reads a list of classes, or a single number, as text."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class AuditThreshold:
    """1 − θ: the rules of `tffl.gan.audit` speak of accuracies, and scores are 1 − accuracy."""

    rule: audit.Rule
    theta: float
    k: float
    floor: float

    def __call__(self, scores: np.ndarray) -> float:
        """Returns the threshold of a round."""
        known = 1 - scores[np.isfinite(scores)]
        return 1 - audit.threshold(known, self.rule, theta=self.theta, k=self.k, floor=self.floor)


@dataclass(frozen=True)
class GanAudit(Detector):
    """Rejects models that err on generated images, as the majority of the models labels them.

    Attributes:
      source: Where audit images come from: `gan` (the paper's), `model-inversion`, `held-out`,
        `auxiliary`, `noise`, or several joined by `+`, whose images are pooled. The default needs
        no data. In single rounds on MNIST (results/gan_audit) it found all label flips, scaled or
        not, but few backdoors that were not scaled; `gan` found few of the flips that were not, and
        most backdoors; `gan+model-inversion` most of both. Inversion needs a global model that has
        learned: with three attackers of ten and clients of 60 images (results/pdgan) it ranked them
        by chance, and `gan` well.
      auxiliary: Classes of the auxiliary images, their numbers or names separated by commas. If
        empty, the paper's: 0 and 4 of digits, dress, coat and sandal of Fashion-MNIST; all classes
        of other datasets. They are the server's samples if it has any (`data.server_samples`),
        else at most 2,000 images of the test set.
      auxiliary_images: How many; all that the server has if absent.
      from_round: d_iter, the first round that is audited; the GAN learns before, too. The paper's
        is 400 for MNIST and 600 for Fashion-MNIST.
      images: Size of the audit set, of each source.
      agreement: Only images count on whose label at least this share of the models agrees.
      balance: Of each voted class, count at most its share of the audit set.
      rule: What θ is: `fixed`, mean − k·std, median − k·1.4826·MAD, or the border of two clusters.
      theta: θ of the rule `fixed`.
      k: Of `mean-std` and `median-mad`.
      floor: Least spread for `median-mad`, least distance of the clusters for `two-means`.
      gan_steps: Steps of discriminator and generator in each round.
      gan_batch: Real and generated images of a step, as many of each.
      gan_loss: The generator's: `saturating` is the paper's eq. 2.
      generator_rate: Learning rate.
      discriminator_rate: Learning rate.
      keep_discriminator: It goes on from where it was, instead of starting from the global model.
      generator_width: Filters of the generator's last but one layer.
      inversion_steps: Steps of gradient ascent.
      inversion_rate: Size of the first of them; the range of an image is 1.
      total_variation: Weight of this regularizer of inverted images.
      l2: Weight of this one.

    >>> GanAudit().judge_rows([[1.0], [2.0], [3.0]])
    Traceback (most recent call last):
        ...
    tffl.core.errors.UsageError: GanAudit looks at clients' models: give model=
    """

    source: str = sources.INVERSION
    auxiliary: Text = ""
    auxiliary_images: Annotated[int, Field(ge=1)] | None = None
    from_round: Annotated[int, Field(ge=1)] = 1
    images: Annotated[int, Field(ge=1, le=100_000)] = 200
    agreement: Share = 0.0
    balance: bool = False
    rule: audit.Rule = "median-mad"
    theta: Share = 0.8
    k: NotNegative = 3.0
    floor: NotNegative = 0.02
    gan_steps: Annotated[int, Field(ge=1)] = 50
    gan_batch: Annotated[int, Field(ge=1)] = 64
    gan_loss: Literal["saturating", "non-saturating"] = "saturating"
    generator_rate: Positive = 1e-3
    discriminator_rate: Positive = 1e-3
    keep_discriminator: bool = False
    generator_width: Annotated[int, Field(ge=1)] = 32
    inversion_steps: Annotated[int, Field(ge=1)] = 60
    inversion_rate: Positive = 0.05
    total_variation: NotNegative = 1.0
    l2: NotNegative = 0.1

    reference: ClassVar[str] = (
        "Zhao et al., Detecting and Mitigating Poisoning Attacks in FL Using GANs, Concurrency and "
        "Computation: Practice and Experience"
    )

    @property
    def uses_model(self) -> bool:
        """It evaluates clients' models."""
        return True

    def __post_init__(self) -> None:
        """Checks the sources' names."""
        super().__post_init__()
        sources.parse_sources(self.source)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources' names."""
        return sources.parse_sources(self.source)

    def declared_knowledge(self) -> tuple[str, ...]:
        """Returns what its sources need."""
        return sources.required_data(self.sources)

    def check(self, participants: int, layout: WeightLayout) -> None:
        """Raises `UsageError` with fewer than 3 participants."""
        super().check(participants, layout)
        require(
            participants >= 3,
            f"gan-audit needs at least 3 participants a round, not {participants}: of two, "
            "neither is a majority",
        )

    def check_server(self, server: Server) -> None:
        """Raises `UsageError` if images are missing, or the network cannot tell fakes."""
        assert server.samples is not None
        require(
            server.samples.images.ndim == 4,
            "gan-audit looks at images, and the data are feature vectors: choose a defense that "
            "judges updates alone, such as multi-krum or update-consensus",
        )
        pool = _pool(server)
        if sources.HELD_OUT in self.sources:
            have = len(pool.labels)
            require(
                self.images <= have,
                f"defense.images = {self.images} is not allowed: the server has {have} images",
            )
        if {sources.GAN, sources.AUXILIARY} & set(self.sources):
            self._auxiliary(server)
        if sources.GAN in self.sources:
            sources.check_gan(_network(server), pool.classes, self.source)

    def init(self, server: Server) -> State:
        """Remembers an untrained generator, if it is to have one."""
        state = dict(super().init(server))
        if sources.GAN in self.sources:
            seed = seeds.integer(server.seed, "generator")
            state |= states.join({GAN: self._gan(server).init(seed)})
        return state

    def score(self, updates: Updates, server: Server) -> np.ndarray:
        """Returns the scores that `examine` finds in a first round."""
        return self.examine(updates, server, self.init(server)).scores

    def examine(self, updates: Updates, server: Server, state: State) -> Evidence:
        """Trains the GAN, and from round d_iter on makes audit images, which all models label."""
        negative = negative_variances(updates)
        sound = updates.finite() & ~negative
        average = _average(updates, sound)
        gan = self._learn(server, average, states.part(state, GAN), updates.round)
        memory = {**states.join({GAN: gan}), **states.join({LAST: states.part(state, LAST)})}
        notes = np.where(negative, "its update makes a moving variance negative", "")
        scores = np.where(sound, np.nan, np.inf)
        if updates.round < self.from_round or not sound.any():
            return Evidence(scores, tuple(notes.tolist()), memory, refused=~sound)
        images = self._images(server, average, gan, updates.round)
        result = self._audit(updates, server, sound, images)
        scores = np.where(result.usable, 1 - result.accuracies, np.inf)
        notes = np.where(sound & ~result.usable, "its model's outputs are not finite", notes)
        last = {"images": images, "threshold": np.array([1 - self.threshold(scores)])}
        return Evidence(
            scores,
            tuple(notes.tolist()),
            {**memory, **states.join({LAST: last})},
            (self._shown(server, images, result),),
            refused=~result.usable,
        )

    @property
    def threshold(self) -> Threshold:
        """1 − θ."""
        return AuditThreshold(self.rule, self.theta, self.k, self.floor)

    def reason(self, score: float, threshold: float) -> str:
        """Says how accurate the model is."""
        return f"audit accuracy {1 - score:.3g} is below {1 - threshold:.3g}"

    def exports(self, server: Server, state: State) -> Mapping[str, DetectorExport]:
        """Returns auditor, generator and discriminator after the last audited round.

        The auditor serves `audit`: from `logits` float32 `[n, m, outputs]` that n models have for m
        audit images, `labels`, `kept`, `accuracy`, `threshold` and `suspected`. With a GAN it takes
        the `images` too, float32 `[m, height, width, channels]` in 0 … 255, and returns `real`
        `[m]`, the discriminator's probability that an image is; the GAN serves `generate`, from `z`
        `[m, latent]` to `images`, and `discriminate`, from `images` to `real` and `logits`. The
        last round's audit images are in `audit_images.npy`.
        """
        last, classes = states.part(state, LAST), _pool(server).classes
        if "images" not in last:
            return {}
        outputs = int(_network(server).output_shape[-1])
        auditor = AuditGraph(
            classes, outputs, **{name: getattr(self, name) for name in RULE_OPTIONS}
        )
        networks: dict[str, Any] = {}
        if sources.GAN in self.sources:
            networks = self._gan(server).networks(states.part(state, GAN))
        about = {
            "source": self.source,
            "classes": classes,
            "class_names": _pool(server).names,
            "auxiliary": self._classes(server) if networks else [],
            "outputs": outputs,
            **{name: getattr(self, name) for name in RULE_OPTIONS},
            "threshold": float(last["threshold"][0]),
        }
        arrays = {"audit_images": last["images"]}
        endpoints = audit_endpoints(auditor, networks, tuple(_network(server).input_shape[1:]))
        return {"detector": DetectorExport(networks, endpoints, arrays, about)}

    def _classes(self, server: Server) -> tuple[int, ...]:
        pool = _pool(server)
        return sources.choose_classes(self.auxiliary, pool.names, pool.classes)

    def _auxiliary(self, server: Server) -> np.ndarray:
        classes = self._classes(server)
        return sources.auxiliary_images(_pool(server), classes, self.auxiliary_images, server.seed)

    def _gan(self, server: Server) -> Dcgan:
        return Dcgan(
            _network(server),
            GanOptions(
                steps=self.gan_steps,
                batch=self.gan_batch,
                loss=self.gan_loss,
                generator_rate=self.generator_rate,
                discriminator_rate=self.discriminator_rate,
                keep=self.keep_discriminator,
                width=self.generator_width,
            ),
        )

    def _learn(self, server: Server, average: np.ndarray, state: State, round: int) -> State:
        if sources.GAN not in self.sources:
            return {}
        images = self._auxiliary(server)
        return self._gan(server).train(state, average, images, server.seed, round)

    def _images(self, server: Server, average: np.ndarray, gan: State, round: int) -> np.ndarray:
        needs_auxiliary = sources.AUXILIARY in self.sources
        request = sources.AuditInputs(
            model=_network(server),
            weights=average,
            count=self.images,
            seed=server.seed,
            round=round,
            classes=_pool(server).classes,
            inversion=Inversion(
                self.inversion_steps, self.inversion_rate, self.total_variation, self.l2
            ),
            samples=_pool(server),
            auxiliary=self._auxiliary(server) if needs_auxiliary else None,
            gan=(self._gan(server), gan) if gan else None,
        )
        return sources.make_images(self.sources, request)

    def _audit(
        self, updates: Updates, server: Server, sound: np.ndarray, images: np.ndarray
    ) -> audit.Audit:
        """Evaluates sound updates' models only; the others have no vote."""
        assert server.explainer is not None
        probes = Probes(images, np.zeros(len(images), np.int32))
        outputs = int(_network(server).output_shape[-1])
        logits = np.full((len(updates), len(images), outputs), np.nan, dtype=np.float32)
        with np.errstate(over="ignore"):
            logits[sound] = server.explainer.logits(updates.select(sound), probes)
        classes = _pool(server).classes
        return audit.audit(logits, classes, agreement=self.agreement, balance=self.balance)

    def _shown(self, server: Server, images: np.ndarray, result: audit.Audit) -> AuditImages:
        """Returns some images of all sources, and how everybody labels them."""
        outputs = int(_network(server).output_shape[-1])
        shown, auxiliary = _spread(len(images)), None
        if {sources.GAN, sources.AUXILIARY} & set(self.sources):
            auxiliary = self._auxiliary(server)
            auxiliary = auxiliary[_spread(len(auxiliary))]
        return AuditImages(
            images=images[shown],
            labels=result.labels[shown],
            support=result.support[shown],
            kept=result.kept[shown],
            label_counts=np.bincount(result.labels[result.kept], minlength=outputs),
            accuracies=result.accuracies,
            confusions=audit.confusion(result.predictions, result.labels, result.kept, outputs),
            auxiliary=auxiliary,
        )


def _spread(count: int) -> np.ndarray:
    """Returns positions of some of the images, from all over them."""
    return np.unique(np.linspace(0, count - 1, PICTURED).astype(int))


def _average(updates: Updates, chosen: np.ndarray) -> np.ndarray:
    """Returns the weights float32 `[d]` that plain averaging of some updates gives."""
    step = updates.mean(sample_shares(updates, chosen))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(updates.start + step)


def _network(server: Server) -> keras.Model:
    """Returns the model as one of pixels from 0 to 255, which all audit images have."""
    assert server.model is not None and server.explainer is not None
    return of_bytes(server.model, server.explainer.pixels)


def _pool(server: Server) -> Samples:
    """Returns the server's samples, all of them if they are its own."""
    samples = server.samples
    assert samples is not None and server.explainer is not None
    own = samples if server.root is None else server.root
    images = as_bytes(own.images, server.explainer.pixels)
    return Samples(images, own.labels, samples.classes, samples.names)
