"""The Hessian of softmax cross-entropy in the logits, H = diag(p) − p pᵀ, as a quadratic form."""

import torch


def centred(probabilities: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """v [n, C] with v·v' = uᵀ H u' for changes u, u' of the logits [n, C] at probabilities [n, C].

    v = √p ∘ (u − pᵀu): the probability-weighted covariance of u and u'.
    """
    mean = (probabilities * change).sum(dim=1, keepdim=True)
    return probabilities.sqrt() * (change - mean)
