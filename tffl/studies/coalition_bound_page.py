"""The page `results/coalition/BOUND.md`: the bounds of `coalition_bound.py`, derived, in numbers.

python -c "from tffl.studies.coalition_bound_page import page; print(page(), end='')"
"""

from __future__ import annotations

from math import sqrt
from string import Template

from tffl.defenses.coalition import CLIP, LONGEST, Coalition
from tffl.defenses.parts.coalitions import ALONE, CLOSE, CLOSED, STUDENT, WELCH
from tffl.studies.coalition_bound import (
    greatest_distance,
    group_gap,
    mean_gap,
    median_pull,
    normal_costs,
    single_gap,
    slack_of,
    traded_gap,
    traded_group_gap,
)

CLIENTS, COLLUDERS = 20, (1, 2, 5, 8)
"""Of the tables."""

LIMITS = (Coalition().coherence, CLOSE, CLOSED)
"""On cohesion."""


def loss_row(colluders: int) -> list[str]:
    """Returns f and f/n times each bound on the gap, for normal honest costs."""
    slack, share = slack_of(normal_costs(CLIENTS - colluders), colluders), colluders / CLIENTS
    beyond = traded_gap(slack, CLIP + 1) - traded_gap(slack)
    alone = [single_gap(slack), traded_gap(slack)]
    group = [group_gap(slack), traded_group_gap(slack)] if colluders > 1 else [None, None]
    gaps = [alone[0], group[0], alone[1], group[1], beyond]
    return [str(colluders), *("–" if gap is None else f"{share * gap:.2f}" for gap in gaps)]


def mean_row(colluders: int) -> list[str]:
    """Returns f, what honest clients do, |b|, and how far the mean moves at each limit."""
    others, share = CLIENTS - colluders, colluders / CLIENTS
    pull, usual = median_pull(others, colluders), sqrt(1 / colluders + 1 / others)
    lengths = (1.0, greatest_distance())
    gaps = [mean_gap(colluders, limit, pull, x) for x in lengths for limit in LIMITS]
    moves = [share * usual, pull, *(share * gap for gap in gaps)]
    return [str(colluders), *(f"{move:.2f}" for move in moves)]


def table(head: str, rows: list[list[str]]) -> str:
    """Returns a Markdown table of numbers."""
    rule = "|" + "---:|" * len(rows[0])
    return "\n".join([head, rule, *(f"| {' | '.join(row)} |" for row in rows)])


def page() -> str:
    """Returns the page as Markdown."""
    loss = (
        "| f | no part gains | and the group is tested | some gain | and the group is tested "
        "| per unit of x beyond X |"
    )
    lengths = (1.0, greatest_distance())
    columns = [f"κ = {limit:g}, λ = {length:g}" for length in lengths for limit in LIMITS]
    mean = f"| f | honest | \\|b\\| | {' | '.join(columns)} |"
    return Template(TEXT).substitute(
        loss=table(loss, [loss_row(f) for f in COLLUDERS]),
        mean=table(mean, [mean_row(f) for f in COLLUDERS]),
        single=f"{ALONE:g}",
        student=f"{STUDENT:g}",
        welch=f"{WELCH:g}",
        least=f"{Coalition().coherence:g}",
        close=f"{CLOSE:g}",
        closed=f"{CLOSED:g}",
        clip=f"{CLIP:g}",
        longest=f"{LONGEST:g}",
        far=f"{greatest_distance():g}",
        weight=f"{1 - Coalition().forgetting:.1g}",
        times=f"{1 / (1 - Coalition().forgetting):.0f}",
        shifts=", ".join(f"{sqrt(k / (1 - k)):.2g} p for κ = {k:g}" for k in LIMITS),
    )


TEXT = """\
# How much harm colluders can do unconvicted

A bound on what f colluders S among n clients can do in one round if `coalition` convicts nobody.
r = n − f are honest, R, and f < r. All weights are 1/n, and the detector has no memory.
`tffl.studies.coalition_bound` computes it for any n, f and honest costs.

Limits: breadth · z ≤ A = $single for single clients; breadth · t ≤ $student (Student) and $welch
(Welch), times 1 + 1/f, for groups, more for n < 20; cohesion at least $least for a group to be
tested, $close for t to count in full, and at most $closed. Costs are cut at X = $clip.

## The loss, to first order

k_i = mean_c ∇ℓ_c · Δ_i is what client i costs the server's images, with the gradient after the
average. Leaving the colluders out changes the average by f/n · (mean_S Δ − mean_R Δ):

    extra loss = η · f/n · gap,   gap = mean_S k − mean_R k         η: the server's learning rate

If ℓ is convex, the extra loss is at most that, since the gradient is taken after the average.
Otherwise it can be larger by ½ C (η · f/n · |mean_S Δ − mean_R Δ|)², −C being the least curvature.

**The yardstick.** The detector measures k_i from the median of all, in units of σ = 1.4826 · MAD of
all, and colluders are among them. With f < r, order statistics of the honest k_j bound what they
can do: median ≤ mean_R k + m, and σ ≤ the largest MAD when they add any f values.

**No part of the classes gains.** Every single client is tested, with breadth 1:

    gap ≤ m + A σ

**Some parts gain.** Whoever lowers the loss of some parts has a smaller breadth, and may cost more.
That is the price of sparing honest clients of few classes. With colluders at most xσ from the
median in each part, x ≤ X, breadth is net harm over gross harm, and gross harm at most xσ and what
the average adds; ρ = mean_c |median − mean_R| at most. Averaged over S, by concavity:

    (r/n) · gap · (gap − m) ≤ A σ (xσ + ρ r/n)   ⟹   gap ≤ ½ (m + √(m² + 4Aσ (xσ n/r + ρ)))

The factor n/r is there because colluders may divide the parts among them: each harms what another
spares. If all send the same, it is 1 instead.

**Beyond X.** The detector does not see what is beyond the cut, and gains of Xσ pay for any harm. At
most ½ + (gap + ρ)/2Xσ of the parts can be cut, so that

    gap ≤ gap(X) + ½ (x − X)(σ + (gap(X) + ρ)/X)

x itself is bounded only by the lengths of the update and of the gradient. **This is the largest
harm that the detector leaves.** It takes colluders who improve nearly half of the classes a lot. X
is not far out: of honest clients, the greatest x was 34 to 66 in 8 rounds of Fashion-MNIST (lenet5,
20 clients of 150 images on average, Dirichlet 0.5 and 0.1), and a typical one 3 to 8. That was
looked at once, and is not recorded.

**If S is proposed as a group**, with cohesion of $close or more, its t counts, too. Costs that
differ within S make t small. They differ most when all but one are at U, the bound for single
clients, and that one makes up for it: Σ_S (k − mean_S)² ≤ f (f − 1)(U − gap)². That leaves, for
Student's t, with Q = Σ_R (k − mean_R)²,

    breadth · gap ≤ $student (1 + 1/f) √( (f (f − 1)(U − gap)² + Q)/(n − 2) · (1/f + 1/r) )

Colluders that all cost the same have 0 in the place of f (f − 1)(U − gap)². At a lower cohesion the
limit is $close / cohesion times as high.

f/n · gap for n = 20, in robust standard deviations of honest costs, which are normal here; x = X:

$loss

## The mean of the updates

Let u_i be the unit vector of Δ_i − median, a = mean_S u, b = mean_R u. Then

    cohesion(S) = (f |a|² − 1)/(f − 1) − a·b ≤ κ   ⟹   |a|² ≤ 1/f + (1 − 1/f)(κ + a·b)

κ is $closed for any group that is proposed. If it costs e > 1 times the limit of t, κ is
$close / e, but not less than $least. If the honest are at distance L from the median and the
colluders at λL, the mean moves, against the mean of the others, by f/n · L · |λa − b|. That is
largest where a and b are opposite:

    |λa − b| ≤ λα + |b|,   α² = 1/f + (1 − 1/f)(κ − α |b|)        if λ (1 − 1/f) ≤ 2

Above that they may point the same way: λα − |b|, with κ + α |b| in α.
|b| is how far the others' mean is from the median, which colluders pull. If coordinates of honest
updates are normal, order statistics bound it, as above. Alone, `coalition` does not bound λ. In
`shield` the test of distances does: λ ≤ $far where honest distances are similar.

A common shift s in updates whose own parts have length p and are orthogonal has, with a median that
stays where it is, cohesion s²/(s² + p²), so that s ≤ $shifts.
Colluders reach more: the median follows them, and their own parts can cancel in the sum.

f/n · |λa − b| for n = 20, in units of L. *Honest*: f clients whose updates are orthogonal.

$mean

## Checked

`tests/studies/test_coalition_bound.py` tries to exceed the bounds, by random ascent from the worst
cases above, against the detector's own search and statistics. No bound is exceeded. For each n and
f that it tries, it gets to at least 60 % of the bound for harm to all parts, 40 % where the group
is tested, 60 % and 25 % where some parts gain, and 80 % and 70 % for the mean of groups that cost
nothing and too much. The bound for groups of which some parts gain is the loosest.

## Not covered

- **Groups that are not proposed.** Only single clients are tested for certain. Groups come from
  eigenvectors and average linkage.
- **Other losses.** It is the loss on the server's images. A backdoor need not cost them anything.
- **Memory.** Over rounds, the limits hold for each client's average, in units of such averages. A
  round has a weight of $weight in the end: whoever has long been honest can do up to $times times
  as much once.
- **Honest clients convicted.** Colluders whose costs are all like the median make σ small, so that
  honest ones exceed the limit: 8 of 20 who do only that, in any directions, have a fifth or more of
  the honest convicted, if costs are normal. The bounds then hold with those who are left as n and
  r, as long as fewer than half of all are convicted; then the search ends.
- **Honest costs cut at Xσ**: the bounds assume that there are none. In the rounds above, 0 to 1 %
  of them were cut; a small σ makes it more.
- **Long rows.** The gradient's point is the average only if no row is longer than $longest times
  the median.
- **Statistics** that no gradient trains, such as BatchNorm's; unequal sample counts.
"""
