"""The databases as published: which file is real or fake, who is in it, and in which split."""

from deepregions.data.clips import Clip as Clip
from deepregions.data.clips import assert_identity_disjoint as assert_identity_disjoint
from deepregions.data.databases.base import Adapter as Adapter
from deepregions.data.databases.celebdf import CelebDF as CelebDF
from deepregions.data.databases.celebdf import CelebDFPlusPlus as CelebDFPlusPlus
from deepregions.data.databases.celebdf import CelebDFv1 as CelebDFv1
from deepregions.data.databases.deepfakebench import DF40 as DF40
from deepregions.data.databases.deepfakebench import DeepfakeBench as DeepfakeBench
from deepregions.data.databases.dfdc import Dfdc as Dfdc
from deepregions.data.databases.dfdc import DfdcPreview as DfdcPreview
from deepregions.data.databases.faceforensics import DeepFakeDetection as DeepFakeDetection
from deepregions.data.databases.faceforensics import FaceForensics as FaceForensics
from deepregions.data.databases.folder import Folder as Folder
from deepregions.data.databases.manifest import Manifest as Manifest
from deepregions.data.databases.uadfv import Uadfv as Uadfv

ADAPTERS: dict[str, type[Adapter]] = {
    adapter.name: adapter
    for adapter in (
        *(Uadfv, FaceForensics, DeepFakeDetection, CelebDFv1, CelebDF, CelebDFPlusPlus),
        *(DfdcPreview, Dfdc, DF40, Folder, Manifest, DeepfakeBench),
    )
}
