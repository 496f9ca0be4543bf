"""Files that say where they come from: tags by Pillow and PyAV, credentials by c2pa-python."""

import io
import json
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import av
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP = f"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Tool &amp; Co 2"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>
</rdf:Description></rdf:RDF></x:xmpmeta>""".encode()


def picture(width: int = 96, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def exif(thumbnail: tuple[int, int] | None = None, *, xmp: bytes = b"") -> bytes:
    """As a phone writes it, after a program has edited the picture."""
    tags, base = Image.Exif(), ExifTags.Base
    tags[base.Make], tags[base.Model] = "ACME", "ACME Phone 3"
    tags[base.Software], tags[base.Orientation] = "Adobe Photoshop 25.0", 6
    own, position = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
    own[base.DateTimeOriginal], own[base.OffsetTimeOriginal] = "2026:05:04 03:02:01", "+02:00"
    position[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    if xmp:
        tags[base.XMLPacket] = xmp
    content = tags.tobytes()
    return content if thumbnail is None else _with_thumbnail(content, thumbnail)


def _with_thumbnail(content: bytes, size: tuple[int, int]) -> bytes:
    """Adds a second directory, which is the thumbnail's (EXIF 2.3, 4.5.8); Pillow writes none."""
    picture(*size).save(small := io.BytesIO(), "JPEG")
    tiff = bytearray(content.removeprefix(b"Exif\0\0"))
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, first)
    struct.pack_into(f"{order}I", tiff, first + 2 + 12 * entries, len(tiff))
    start = len(tiff) + 2 + 2 * 12 + 4
    values = (2, 0x201, 4, 1, start, 0x202, 4, 1, len(small.getvalue()), 0)
    return b"Exif\0\0" + tiff + struct.pack(f"{order}HHHIIHHIII", *values) + small.getvalue()


def tagged(kind: str, thumbnail: tuple[int, int] | None = None, **more: Any) -> bytes:
    """A photograph whose tags say all that they can."""
    if kind == "PNG":
        more["pnginfo"] = text = PngImagePlugin.PngInfo()
        text.add_text("Software", "Maker 1")
        text.add_text("parameters", "a face, Steps: 20, \x1b[2J Sampler: Euler", zip=True)
        text.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    elif kind != "TIFF":
        more["xmp"] = XMP
    about = exif(thumbnail, xmp=XMP if kind == "TIFF" else b"")
    picture().save(stream := io.BytesIO(), kind, exif=about, **more)
    return stream.getvalue()


def tagged_video(kind: str = "mp4") -> bytes:
    stream = io.BytesIO()
    options = {"movflags": "use_metadata_tags"} if kind in ("mp4", "mov") else {}
    with av.open(stream, "w", format=kind, options=options) as container:
        container.metadata["creation_time"] = "2026-05-04T03:02:01.000000Z"
        container.metadata["make"] = "ACME"
        container.metadata["model"] = "Camcorder 3"
        container.metadata["location"] = "+52.5200+013.4050/"
        container.metadata["software"] = "CapCut \N{RIGHT-TO-LEFT OVERRIDE} 5"
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height = 96, 64
        for level in range(5):
            shown = np.full((64, 96, 3), 40 * level, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(shown)))
        container.mux(video.encode())
    return stream.getvalue()


def signer() -> Any:
    """Signs with a certificate that is made here, whose issuer can be asked over the network."""
    import c2pa
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

    now, keys = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    oids = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME
    names = [
        x509.Name([x509.NameAttribute(oid, text) for oid, text in zip(oids, each, strict=True)])
        for each in (("Root", "Root & Sons"), ("Ann <b>Editor</b>", "The \x1bNewsroom"))
    ]
    certificates = []
    for name, key, root in zip(names, keys, (True, False), strict=True):
        made = (
            x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(1))
            .not_valid_after(now + timedelta(9))
            .add_extension(x509.BasicConstraints(root, None), critical=True)
            .add_extension(
                x509.KeyUsage(not root, *[False] * 4, root, root, False, False), critical=True
            )
        )
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        asked = x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://127.0.0.1:9")
        )
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        told = [own, issuer]
        for extension in told if root else [*told, usage, x509.AuthorityInformationAccess([asked])]:
            made = made.add_extension(extension, critical=False)
        certificate = made.sign(keys[0], hashes.SHA256())
        certificates.append(certificate.public_bytes(serialization.Encoding.PEM))
    private = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = certificates[1] + certificates[0]
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, private, None))


def signed(content: bytes, kind: str, by: Any, *, remote: str = "") -> bytes:
    """Adds content credentials; or only, where these are said to be."""
    import c2pa

    action = {
        "action": "c2pa.created",
        "digitalSourceType": f"{SOURCE_TYPE}trainedAlgorithmicMedia",
        "softwareAgent": {"name": "Generator", "version": "3"},
    }
    manifest = {
        "claim_generator_info": [{"name": "tester", "version": "1.2"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    context = c2pa.Context.from_dict({"builder": {"thumbnail": {"enabled": False}}})
    with c2pa.Builder(json.dumps(manifest), context) as builder:
        if remote:
            builder.set_no_embed()
            builder.set_remote_url(remote)
        builder.sign(by, kind, io.BytesIO(content), written := io.BytesIO())
    return written.getvalue()
