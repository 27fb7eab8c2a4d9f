"""The DICOM libraries without their own words: log lines, warnings and tracebacks that may quote a header."""

import logging
import warnings

import pynetdicom._config

# This module tells pydicom and its decoders to be silent.
from fedmedclip.edge_client.images.readers import dicom_file as dicom_file

for _name in ("pynetdicom", "highdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
    logging.getLogger(_name).propagate = False
warnings.filterwarnings("ignore", module=r"pynetdicom|highdicom|fedmedclip\.edge_client\.serving\.dicom")
# "standard" would print each message that comes and goes, and bind handlers for it.
pynetdicom._config.LOG_HANDLER_LEVEL = "none"
