"""A planted tree of groups of neurons, and activations that its features make."""

from __future__ import annotations

import torch

N_GRANDPARENTS, N_PARENTS, N_CHILDREN, WIDTH = 3, 6, 24, 400


def planted_tree(seed=0):
    """Children with neurons of their own, of their parent, and of their grandparent."""
    generator = torch.Generator().manual_seed(seed)
    neurons = torch.randperm(WIDTH, generator=generator)
    grandparents, rest = neurons[:15].view(3, 5), neurons[15:]
    parents, own = rest[:30].view(6, 5), rest[30 : 30 + 48].view(24, 2)
    dictionary = torch.zeros(N_CHILDREN, WIDTH)
    parent_of = torch.arange(N_CHILDREN) // 4
    signs = torch.randn(WIDTH, generator=generator).sign()
    for child, parent in enumerate(parent_of.tolist()):
        dictionary[child, grandparents[parent // 2]] = 0.5
        dictionary[child, parents[parent]] = 1.0
        dictionary[child, own[child]] = 0.4
    dictionary *= signs * (0.9 + 0.2 * torch.rand(WIDTH, generator=generator))
    return torch.nn.functional.normalize(dictionary, dim=1), parent_of


def activations_of(dictionary, *, n_tokens=600, noise=0.0, seed=0):
    """Sparse non-negative mixtures of the rows, in the dictionary's dtype."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n_tokens, len(dictionary))
    coefficients = torch.rand(shape, generator=generator)
    coefficients *= torch.rand(shape, generator=generator) < 0.15
    rows = coefficients.to(dictionary) @ dictionary
    scale = float(rows.norm(dim=1).mean()) / dictionary.shape[1] ** 0.5
    return rows + noise * scale * torch.randn(rows.shape, generator=generator).to(dictionary)


def noisy_rows(dictionary, noise, seed=0):
    """Unit rows with Gaussian noise on the neurons they use."""
    generator = torch.Generator().manual_seed(seed)
    scale = float(dictionary[dictionary != 0].abs().mean())
    moved = noise * scale * torch.randn(dictionary.shape, generator=generator)
    return torch.nn.functional.normalize(dictionary + moved * (dictionary != 0), dim=1)


def permuted(dictionary, seed=0):
    """Each row's neurons in an order of its own."""
    order = torch.rand(dictionary.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return dictionary.gather(1, order)
