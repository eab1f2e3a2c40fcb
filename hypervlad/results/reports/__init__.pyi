from .alignment import write_alignment
from .classified_page import write_classified_page
from .defects import write_defect_report, write_findings
from .evaluation import report_on_held_out, report_on_model
from .facts import model_facts
from .predictions import predictions_as_bytes

__all__ = [
    "model_facts",
    "predictions_as_bytes",
    "report_on_held_out",
    "report_on_model",
    "write_alignment",
    "write_classified_page",
    "write_defect_report",
    "write_findings",
]
