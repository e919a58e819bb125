"""The Hessian of softmax cross-entropy in the logits, H = diag(p) − p pᵀ: as a form, its roots."""

import torch

from mpsearch.running.seeds import signs


def centred(probabilities: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """v [n, C] with v·v' = uᵀ H u' for changes u, u' of the logits [n, C] at probabilities [n, C].

    v = √p ∘ (u − pᵀu): the probability-weighted covariance of u and u'.
    """
    mean = (probabilities * change).sum(dim=1, keepdim=True)
    return probabilities.sqrt() * (change - mean)


def output_factor(logits: torch.Tensor) -> torch.Tensor:
    """S [N, C, C-1] with S Sᵀ = diag(p) − p pᵀ for p = softmax(logits [N, C]).

    Column j is zero above row j, sqrt(p_j q_{j+1}/q_j) in row j and −p_i sqrt(p_j/(q_j q_{j+1}))
    below, where q_j = p_j + … + p_C. The sums run from the small end, so nothing is subtracted.
    """
    p = torch.softmax(logits.detach().double(), dim=1)
    tails = p.flip(1).cumsum(1).flip(1)  # q_1 … q_C
    ahead, behind = tails[:, :-1], tails[:, 1:]
    columns = p.shape[1] - 1
    root = torch.sqrt(p[:, :-1] / (ahead * behind))
    root = torch.where(behind > 0, root, torch.zeros_like(root))
    factor = (-p[:, :, None] * root[:, None, :]).tril(-1)
    index = torch.arange(columns, device=logits.device)
    factor[:, index, index] = torch.sqrt(p[:, :-1] * behind / ahead)
    return factor.to(logits.dtype)


def random_direction(logits: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """S ε [N, C, …] for signs ε and S = diag(√p) − p √pᵀ, for which S Sᵀ = diag(p) − p pᵀ.

    This square root needs no [N, C, C] array. Signs vary less than classes drawn from p: where the
    network is sure, a draw is almost always the sure class, which says nothing.
    """
    p = torch.softmax(logits.detach().double(), dim=1)
    scaled = p.sqrt() * signs(p, random)
    return (scaled - p * scaled.sum(1, keepdim=True)).to(logits.dtype)
