from hypervlad.objects.counts import count_particles, particle_sizes
from hypervlad.objects.detection import Detection, FindingRange
from hypervlad.objects.fields import Field, edge_weights
from hypervlad.objects.found_counts import FoundCounts
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.measures import measure
from hypervlad.objects.outlines import find_outlines, read_outlines, write_outlines
from hypervlad.objects.particle import Outline, Outlines, Particle, cut_particles
from hypervlad.objects.rules import NAMED_RULES, match_rule
from hypervlad.objects.splitting import split_particles
from hypervlad.particles.finding import FoundParticles, find_particles
from hypervlad.particles.search import find_in_images

__all__ = [
    "NAMED_RULES",
    "Detection",
    "Field",
    "FindingRange",
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
