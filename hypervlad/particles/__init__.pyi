from .counts import Field, count_particles, edge_weights, particle_sizes
from .export import write_outlines
from .finding import FoundParticles, find_particles
from .found import FoundCounts, FoundFolder
from .measures import measure
from .outlines import find_outlines, read_outlines
from .particle import Outline, Outlines, Particle, cut_particles
from .rules import NAMED_RULES, match_rule
from .search import find_in_images
from .splitting import split_particles

__all__ = [
    "NAMED_RULES",
    "Field",
    "FoundCounts",
    "FoundFolder",
    "FoundParticles",
    "Outline",
    "Outlines",
    "Particle",
    "count_particles",
    "cut_particles",
    "edge_weights",
    "find_in_images",
    "find_outlines",
    "find_particles",
    "match_rule",
    "measure",
    "particle_sizes",
    "read_outlines",
    "split_particles",
    "write_outlines",
]
