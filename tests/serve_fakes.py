"""A service with quick workers as a process of its own: ``serve_fakes.py DATA PORT``."""

import sys
from pathlib import Path

import uvicorn
from service_fakes import quick

from deepregions.service.app import create_app
from deepregions.service.settings import ServiceSettings

if __name__ == "__main__":
    settings = ServiceSettings(Path(sys.argv[1]), workers=2, make_scorer=quick)
    uvicorn.run(create_app(settings), port=int(sys.argv[2]), log_level="warning")
