"""KL divergence and cross-entropy, and which of them an actor descends."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sac_continuous
from notes.helpers import T, best_policy, discrete_actor_loss, normal_noise, squashed_log_prob, two_peaks


def discrete_kl(p, q):
    """KL(p || q) by our actor_loss: the temperature is 1 and the value log q, so that Z = 1."""
    return discrete_actor_loss(p, T(q, dtype=torch.float64).log(), 1.0).item()


def squashed_kl(p, q, noise):
    """KL(p || q) of squashed Gaussians (mean, std) by our squash and actor_loss; tanh does not change a KL."""
    u = p[0] + p[1] * noise
    log_p, log_q = squashed_log_prob(u, *p), squashed_log_prob(u, *q)
    return sac_continuous.actor_loss(log_p, log_q, log_q, T(1.0))


def test_R004_10_kl_is_never_negative():
    """No pair of distributions has a KL below 0 in our actor's loss; in bits it is the same over ln 2."""
    torch.manual_seed(0)
    for p, q in (2 * torch.randn(100, 2, 3).double()).softmax(-1):
        nats = discrete_kl(p.tolist(), q.tolist())
        assert nats > 0
        assert (p * (p / q).log2()).sum().item() == pytest.approx(nats / math.log(2))


def test_R004_2_zero_probabilities_count_zero_or_infinity():
    """Where q is 0 and p is not, the loss is infinite; where p is 0, that action is never drawn and counts 0."""
    assert discrete_kl([0.5, 0.5], [1.0, 0.0]) == math.inf
    assert discrete_kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert discrete_kl([0.5, 0.5, 0.0], [0.25, 0.5, 0.25]) == pytest.approx(0.5 * math.log(2))
    almost = discrete_kl([1 - 1e-9, 1e-9], [0.5, 0.5])  # the limit of p log p at 0
    assert almost == pytest.approx(math.log(2), abs=1e-6)


def test_R003_22_kl_is_no_metric():
    """By our actor's loss: 0 for equal ones, two values for two orders, and a detour that is shorter."""
    p, q = [0.2, 0.8], [0.6, 0.4]
    assert discrete_kl(p, p) == pytest.approx(0) and discrete_kl(q, q) == pytest.approx(0)
    assert discrete_kl(p, q) == pytest.approx(0.3348, abs=1e-4)  # 0.2 ln(1/3) + 0.8 ln 2
    assert discrete_kl(q, p) == pytest.approx(0.3819, abs=1e-4)  # 0.6 ln 3 + 0.4 ln(1/2)
    a, b, c = [0.5, 0.5], [0.25, 0.75], [0.1, 0.9]
    assert discrete_kl(a, c) == pytest.approx(0.5108, abs=1e-4)
    assert discrete_kl(a, b) + discrete_kl(b, c) == pytest.approx(0.2362, abs=1e-4)


def test_E003_58_kl_is_sometimes_symmetric():
    """The two orders do agree for some pairs: (0.3, 0.7) and its mirror image, N(0, 1) and N(2, 1)."""
    assert discrete_kl([0.3, 0.7], [0.7, 0.3]) == pytest.approx(0.3389, abs=1e-4)
    assert discrete_kl([0.7, 0.3], [0.3, 0.7]) == pytest.approx(0.3389, abs=1e-4)
    for p, q in itertools.permutations([(0.0, 1.0), (2.0, 1.0)]):
        assert squashed_kl(p, q, normal_noise(2001)).item() == pytest.approx(2.0, abs=1e-3)
    assert discrete_kl([0.2, 0.8], [0.6, 0.4]) != pytest.approx(discrete_kl([0.6, 0.4], [0.2, 0.8]), abs=0.01)


def test_R004_4_cross_entropy_and_kl_not_metrics():
    """H(p, p) = H(p) = 0.5004 is not 0, and KL has 0.335 in one and 0.382 in the other order."""
    p, q = [0.2, 0.8], [0.6, 0.4]
    assert F.cross_entropy(T(p).log(), T(p)).item() == pytest.approx(0.5004, abs=1e-4)
    assert (discrete_kl(p, q), discrete_kl(q, p)) == pytest.approx((0.3348, 0.3819), abs=1e-4)


def test_R003_23_kl_is_extra_code_length():
    """Code words of 2, 2, 1 bits, made for (1/4, 1/4, 1/2), cost (1/2, 1/4, 1/4) 1.75 instead of 1.5 bits."""
    extra_bits = (0.5 * 2 + 0.25 * 2 + 0.25 * 1) - (0.5 * 1 + 0.25 * 2 + 0.25 * 2)
    assert discrete_kl([0.5, 0.25, 0.25], [0.25, 0.25, 0.5]) / math.log(2) == pytest.approx(extra_bits)


def test_R004_1_kl_is_cross_entropy_less_entropy():
    """Cross-entropy, by PyTorch's loss, less entropy is the KL of our actor's loss."""
    p, q = [0.2, 0.5, 0.3], [0.6, 0.1, 0.3]
    cross_entropy = F.cross_entropy(T(q).log(), T(p)).item()
    entropy = torch.distributions.Categorical(T(p)).entropy().item()
    assert cross_entropy - entropy == pytest.approx(discrete_kl(p, q), abs=1e-5)
    assert discrete_kl(p, q) == pytest.approx(0.5850, abs=1e-4)  # 0.2 ln(1/3) + 0.5 ln 5


def test_R004_3_cross_entropy_and_kl_share_minimum():
    """For a fixed p, cross-entropy less KL is H(p) = 1.0297 for every q, and both are least at q = p."""
    p = [0.2, 0.5, 0.3]
    torch.manual_seed(0)
    for q in torch.randn(20, 3).double().softmax(-1):
        cross_entropy = F.cross_entropy(q.log(), T(p).double()).item()
        assert cross_entropy - discrete_kl(p, q.tolist()) == pytest.approx(1.0297, abs=1e-4)
        assert cross_entropy > 1.0297
    least = F.cross_entropy(T(p).log(), T(p)).item()
    assert discrete_kl(p, p) == pytest.approx(0) and least == pytest.approx(1.0297, abs=1e-4)


def test_E004_3_cross_entropy_alone_becomes_greedy():
    """Cross-entropy alone makes the policy greedy; our loss, with α log π, has the softmax (0.495, 0.100, 0.405)."""
    q, alpha = T([1.0, 0.2, 0.9], dtype=torch.float64), 0.5
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(2000):
        loss = -(logits.softmax(0) @ (q / alpha).log_softmax(0))  # H(π, p)
        logits.data -= 10 * torch.autograd.grad(loss, logits)[0]
    assert logits.softmax(0)[0] > 0.999
    assert best_policy(q, alpha).tolist() == pytest.approx([0.495, 0.100, 0.405], abs=5e-4)


def test_R004_5_kl_hessian_is_fisher_matrix():
    """The Hessian of our squashed policy's KL is Fisher's diag(1 / σ², 2 / σ²), tanh or not."""
    noise, mean, std = normal_noise(20_001), 0.3, 0.7

    def kl(theta):
        return squashed_kl((mean, std), (theta[0], theta[1]), noise)

    hessian = torch.autograd.functional.hessian(kl, T([mean, std], dtype=torch.float64))
    assert torch.allclose(hessian, torch.diag(T([1 / 0.49, 2 / 0.49])).double(), rtol=5e-3, atol=1e-6)


def test_E004_7_root_of_kl_behaves_like_distance():
    """KL(0, 2) = 2 > 0.5 + 0.5 breaks the triangle inequality; the distance is √(2 KL): 2 = 1 + 1."""
    noise = normal_noise(4001)
    far, near, rest = (squashed_kl((a, 1.0), (b, 1.0), noise).item() for a, b in ((0.0, 2.0), (0.0, 1.0), (1.0, 2.0)))
    assert (far, near, rest) == pytest.approx((2, 0.5, 0.5), abs=1e-3)
    assert math.sqrt(2 * far) == pytest.approx(math.sqrt(2 * near) + math.sqrt(2 * rest), abs=1e-3)


def test_E004_12_kl_ignores_splitting_an_outcome():
    """An outcome split into two equal halves: 2 KL stays 0.0004, the squared plain distance falls to 0.00015."""
    whole, split = ([0.5, 0.5], [0.51, 0.49]), ([0.25, 0.25, 0.5], [0.255, 0.255, 0.49])
    assert [2 * discrete_kl(*pair) for pair in (whole, split)] == pytest.approx([0.0004] * 2, abs=5e-7)
    plain = [sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in (whole, split)]
    assert plain == pytest.approx([0.0002, 0.00015])


def test_E004_1_kl_mean_converges_only_sums_grow():
    """Our mean is near 8 for 500 as for 5000 samples; it is a sum, 3,900 to 40,000, that grows with their number."""
    torch.manual_seed(0)
    sums = []
    for size in (500, 1000, 2000, 5000):
        noise = torch.randn(size, 1).double()
        mean = squashed_kl((0.0, 2.0), (8.0, 2.0), noise).item()
        assert mean == pytest.approx(8, abs=4 * 4 / math.sqrt(size))  # the log-ratio, 8 - 2 u, has deviation 4
        sums.append(size * mean)
    assert 8 < sums[-1] / sums[0] < 12


def test_E004_2_kl_itself_changes_with_deviation():
    """KL(N(0, 2) || N(3, s)) is 5.31, 0.589 and 1.82 for s = 1, √13 and 20: it is KL that changes, not a bias."""
    noise = normal_noise(100_001)
    for std, exact in ((1.0, 5.3069), (13**0.5, 0.5893), (20.0, 1.8188)):
        assert squashed_kl((0.0, 2.0), (3.0, std), noise).item() == pytest.approx(exact, abs=5e-4)


def test_E004_11_kl_differs_for_deviation_and_variance():
    """N(0, 2) and N(8, 2): KL is 8 if 2 is the deviation, as in our squash, and 16 if it is the variance."""
    noise = normal_noise(4001)
    assert squashed_kl((0.0, 2.0), (8.0, 2.0), noise).item() == pytest.approx(8, abs=1e-3)
    assert squashed_kl((0.0, 2**0.5), (8.0, 2**0.5), noise).item() == pytest.approx(16, abs=1e-3)


def test_E003_51_minimum_kl_need_not_be_zero():
    """The best Gaussian for a target with two peaks is at ln 2 = 0.693, not at the 0 of the note."""
    noise = normal_noise(401)
    losses = {}
    for mean, std in itertools.product(np.arange(-4, 4.5, 0.5), (0.25, 0.4, 0.5, 0.6, 1.0, 2.0, 3.0)):
        u = mean + std * noise
        log_target = two_peaks(u)
        losses[mean, std] = sac_continuous.actor_loss(
            squashed_log_prob(u, mean, std), log_target, log_target, T(1.0)
        ).item()
    assert min(losses.values()) == pytest.approx(math.log(2), abs=1e-3)


def test_E003_40_actor_loss_settles_on_one_peak():
    """Our loss settles on one of two equal peaks; the forward KL, for which the note takes it, covers both."""
    noise, ours, forward = normal_noise(401), {}, {}
    drawn = torch.cat([-3 + 0.5 * noise, 3 + 0.5 * noise])  # from the target
    for mean, std in itertools.product(np.arange(-4, 4.5, 0.5), (0.25, 0.5, 1.0, 2.0, 3.0, 4.0)):
        u = mean + std * noise
        log_target = two_peaks(u)
        ours[mean, std] = sac_continuous.actor_loss(
            squashed_log_prob(u, mean, std), log_target, log_target, T(1.0)
        ).item()
        forward[mean, std] = (two_peaks(drawn) - squashed_log_prob(drawn, mean, std)).mean().item()
    mean, std = min(ours, key=ours.get)
    assert abs(mean) == 3 and std == 0.5
    assert min(forward, key=forward.get) == (0, 3)
    below, best, above = (-squashed_log_prob(drawn, 0.0, std).mean() for std in (3.03, 3.04, 3.05))
    assert best < min(below, above)  # √(3² + 0.5²) = 3.041
    # the policy may leave out an action of the target, but not add one
    assert discrete_kl([1.0, 0.0], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert discrete_kl([0.5, 0.5], [1.0, 0.0]) == math.inf


def test_R003_21_actor_loss_is_shifted_kl():
    """Our actor's loss is alpha KL(policy || exp(Q / alpha) / Z) less alpha log Z, for any policy."""
    torch.manual_seed(0)
    for alpha in (0.1, 1.0, 3.0):
        logits, q = torch.randn(2, 5).double()
        policy, target = (torch.distributions.Categorical(logits=x) for x in (logits, q / alpha))
        kl = torch.distributions.kl_divergence(policy, target).item()
        expected = alpha * kl - alpha * (q / alpha).logsumexp(0).item()
        assert discrete_actor_loss(policy.probs, q, alpha).item() == pytest.approx(expected, abs=1e-9)


def test_R004_8_log_z_leaves_gradients_alone():
    """With α log Z our loss is α KL, without it less by the constant α log Z; the gradients are the same."""
    alpha, grid = 0.2, torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    log_z = torch.trapezoid((-((grid - 0.3) ** 2) / alpha).exp(), grid).log()
    noise, results = normal_noise(2001), []
    for constant in (torch.zeros(()), log_z):
        mean, log_std = (T([[x]], dtype=torch.float64, requires_grad=True) for x in (0.5, -0.4))
        action, log_prob = sac_continuous.squash(mean, log_std, noise)
        q = -((action[:, 0] - 0.3) ** 2) - alpha * constant
        loss = sac_continuous.actor_loss(log_prob, q, q, T(alpha))
        results.append([loss, *torch.autograd.grad(loss, [mean, log_std])])
    (bare, *without), (whole, *with_z) = results
    assert torch.allclose(torch.cat(without), torch.cat(with_z), atol=1e-12)
    assert (whole - bare).item() == pytest.approx(alpha * log_z.item()) and whole > 0
