"""Certificates as OpenSSL's own library reads them, through `ctypes`: what nginx reads.

`read` gives what `d2i_X509` and `X509_get_ext_d2i` find; `reencoded` what nginx forwards in
`$ssl_client_escaped_cert`; `is_signed_by` what `X509_verify` says; `verdict` what
`X509_verify_cert` says of a chain, as nginx asks it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Any

_SAN, _EKU, _POLICIES = 85, 126, 89
_OTHER, _EMAIL, _DNS, _URI, _IP = 0, 1, 2, 6, 7
_KINDS = {_EMAIL: "email", _DNS: "dns", _URI: "uri", _IP: "ip", _OTHER: "upn"}
_UPN = "1.3.6.1.4.1.311.20.2.3"
# The types of an ASN1_TYPE whose value isn't an ASN1_STRING: a number, nothing, an ASN1_OBJECT.
_BOOLEAN, _NULL, _OBJECT = 1, 5, 6
# XN_FLAG_RFC2253 without ASN1_STRFLGS_ESC_MSB: other characters than ASCII stay as they are.
_RFC2253 = 1 | 2 | 0x10 | 0x100 | 0x200 | 1 << 16 | 1 << 20 | 1 << 24

_POINTERS = """d2i_X509 X509_get_subject_name X509_get_issuer_name X509_NAME_get_entry
X509_NAME_ENTRY_get_object X509_NAME_ENTRY_get_data X509_get_ext_d2i OPENSSL_sk_value
ASN1_STRING_get0_data BIO_new BIO_s_mem d2i_PUBKEY d2i_X509 X509_STORE_new X509_STORE_CTX_new
X509_STORE_CTX_get0_param OPENSSL_sk_new_null""".split()
_SSL_CLIENT, _SECURITY_LEVEL = 1, 2


@cache
def _library() -> Any:
    name = ctypes.util.find_library("crypto")
    assert name is not None, "OpenSSL's libcrypto isn't here"
    library = ctypes.CDLL(name)
    for function in _POINTERS:
        getattr(library, function).restype = ctypes.c_void_p
    library.X509_verify_cert_error_string.restype = ctypes.c_char_p
    return library


@dataclass(frozen=True)
class Read:
    """What OpenSSL reads.  A kind that it can't read is None, one that isn't there is empty."""

    subject: tuple[tuple[str, str | None], ...]
    dn: str
    issuer_dn: str
    names: dict[str, tuple[bytes, ...]] | None
    eku: tuple[str, ...] | None
    policy_oid: tuple[str, ...] | None


class _Certificate:
    def __init__(self, der: bytes) -> None:
        self._lib = _library()
        at = ctypes.c_char_p(der)
        start = ctypes.cast(at, ctypes.c_void_p).value
        place = ctypes.c_void_p(start)
        self.x509 = self._lib.d2i_X509(None, ctypes.byref(place), ctypes.c_long(len(der)))
        assert start is not None
        self.whole = bool(self.x509) and place.value == start + len(der)

    def __enter__(self) -> _Certificate:
        return self

    def __exit__(self, *_: object) -> None:
        if self.x509:
            self._lib.X509_free(ctypes.c_void_p(self.x509))
        self._lib.ERR_clear_error()


def read(der: bytes) -> Read | None:
    """What OpenSSL reads of a certificate, None where it refuses it, or trailing octets."""
    with _Certificate(der) as found:
        if not found.whole:
            return None
        lib = _library()
        subject = lib.X509_get_subject_name(ctypes.c_void_p(found.x509))
        issuer = lib.X509_get_issuer_name(ctypes.c_void_p(found.x509))
        return Read(
            _attributes(subject),
            _printed(subject),
            _printed(issuer),
            _names(found.x509),
            _oids(found.x509, _EKU),
            _oids(found.x509, _POLICIES),
        )


def reencoded(der: bytes) -> bytes | None:
    """What OpenSSL writes of a certificate that it has read."""
    with _Certificate(der) as found:
        if not found.whole:
            return None
        lib, out = _library(), ctypes.c_void_p()
        size = lib.i2d_X509(ctypes.c_void_p(found.x509), ctypes.byref(out))
        data = ctypes.string_at(out, size)
        lib.CRYPTO_free(out, None, 0)
        return data


def is_signed_by(der: bytes, spki: bytes) -> bool:
    """Whether OpenSSL finds the signature to be that key's."""
    lib = _library()
    with _Certificate(der) as found:
        if not found.whole:
            return False
        place = ctypes.cast(ctypes.c_char_p(spki), ctypes.c_void_p)
        key = lib.d2i_PUBKEY(None, ctypes.byref(place), ctypes.c_long(len(spki)))
        verified = lib.X509_verify(ctypes.c_void_p(found.x509), ctypes.c_void_p(key))
        lib.EVP_PKEY_free(ctypes.c_void_p(key))
        return bool(verified == 1)


def verdict(anchors: Sequence[bytes], between: Sequence[bytes], leaf: bytes, now: float) -> str:
    """Why OpenSSL refuses a chain for TLS clients at security level 2; "" where it accepts it."""
    lib = _library()
    store, stack = map(ctypes.c_void_p, (lib.X509_STORE_new(), lib.OPENSSL_sk_new_null()))
    context = ctypes.c_void_p(lib.X509_STORE_CTX_new())
    with ExitStack() as held:
        end, *others = [
            held.enter_context(_Certificate(each)) for each in (leaf, *anchors, *between)
        ]
        if not end.whole:
            return "unreadable"
        for place, each in enumerate(others):
            if each.whole and place < len(anchors):
                lib.X509_STORE_add_cert(store, ctypes.c_void_p(each.x509))
            elif each.whole:
                lib.OPENSSL_sk_push(stack, ctypes.c_void_p(each.x509))
        lib.X509_STORE_CTX_init(context, store, ctypes.c_void_p(end.x509), stack)
        asked = ctypes.c_void_p(lib.X509_STORE_CTX_get0_param(context))
        lib.X509_VERIFY_PARAM_set_purpose(asked, _SSL_CLIENT)
        lib.X509_VERIFY_PARAM_set_auth_level(asked, _SECURITY_LEVEL)
        lib.X509_VERIFY_PARAM_set_time(asked, ctypes.c_long(int(now)))
        good = lib.X509_verify_cert(context) == 1
        error = ctypes.c_long(lib.X509_STORE_CTX_get_error(context))
        lib.X509_STORE_CTX_free(context)
        lib.X509_STORE_free(store)
        lib.OPENSSL_sk_free(stack)
    return "" if good else str(lib.X509_verify_cert_error_string(error).decode())


def is_key(spki: bytes) -> bool:
    """Whether OpenSSL reads a SubjectPublicKeyInfo, and a key in it that it can use."""
    lib = _library()
    place = ctypes.cast(ctypes.c_char_p(spki), ctypes.c_void_p)
    key = lib.d2i_PUBKEY(None, ctypes.byref(place), ctypes.c_long(len(spki)))
    if key:
        lib.EVP_PKEY_free(ctypes.c_void_p(key))
    lib.ERR_clear_error()
    return bool(key)


def _printed(name: int) -> str:
    lib = _library()
    bio = lib.BIO_new(ctypes.c_void_p(lib.BIO_s_mem()))
    lib.X509_NAME_print_ex(ctypes.c_void_p(bio), ctypes.c_void_p(name), 0, _RFC2253)
    buffer = ctypes.create_string_buffer(1 << 16)
    size = lib.BIO_read(ctypes.c_void_p(bio), buffer, len(buffer))
    lib.BIO_free(ctypes.c_void_p(bio))
    return buffer.raw[: max(0, size)].decode("utf-8", "surrogateescape")


def _attributes(name: int) -> tuple[tuple[str, str | None], ...]:
    lib = _library()
    found = []
    for at in range(lib.X509_NAME_entry_count(ctypes.c_void_p(name))):
        entry = ctypes.c_void_p(lib.X509_NAME_get_entry(ctypes.c_void_p(name), at))
        kind = _dotted(lib.X509_NAME_ENTRY_get_object(entry))
        found.append((kind, _text(lib.X509_NAME_ENTRY_get_data(entry))))
    return tuple(found)


def _text(string: int) -> str | None:
    lib, out = _library(), ctypes.c_void_p()
    size = lib.ASN1_STRING_to_UTF8(ctypes.byref(out), ctypes.c_void_p(string))
    if size < 0:
        return None
    text = ctypes.string_at(out, size).decode("utf-8", "surrogatepass")
    lib.CRYPTO_free(out, None, 0)
    return text


def _any_text(value: int) -> str | None:
    """The text of an ASN1_TYPE {type, value}, None where it holds no string."""
    if ctypes.c_int.from_address(value).value in (_BOOLEAN, _NULL, _OBJECT):
        return None
    return _text(_pointer(value + 8))


def _dotted(oid: int) -> str:
    buffer = ctypes.create_string_buffer(4096)
    _library().OBJ_obj2txt(buffer, len(buffer), ctypes.c_void_p(oid), 1)
    return buffer.value.decode()


def _extension(x509: int, nid: int) -> tuple[int | None, bool]:
    """The decoded value, and whether there is such an extension."""
    critical = ctypes.c_int()
    found = _library().X509_get_ext_d2i(ctypes.c_void_p(x509), nid, ctypes.byref(critical), None)
    return found, critical.value != -1


def _items(stack: int) -> list[int]:
    lib = _library()
    size = lib.OPENSSL_sk_num(ctypes.c_void_p(stack))
    return [lib.OPENSSL_sk_value(ctypes.c_void_p(stack), at) for at in range(size)]


def _pointer(address: int) -> int:
    return ctypes.c_void_p.from_address(address).value or 0


def _oids(x509: int, nid: int) -> tuple[str, ...] | None:
    stack, present = _extension(x509, nid)
    if stack is None:
        return None if present else ()
    # A POLICYINFO begins with the pointer to its OID; the values leak, as it is a test's.
    items = _items(stack)
    return tuple(_dotted(each if nid == _EKU else _pointer(each)) for each in items)


def _names(x509: int) -> dict[str, tuple[bytes, ...]] | None:
    stack, present = _extension(x509, _SAN)
    found: dict[str, list[bytes]] = {kind: [] for kind in _KINDS.values()}
    if stack is None:
        return None if present else dict.fromkeys(found, ())
    lib = _library()
    for each in _items(stack):
        kind = ctypes.c_int.from_address(each).value
        value = _pointer(each + 8)
        if kind == _OTHER:
            if _dotted(_pointer(value)) == _UPN:  # OTHERNAME {oid, ASN1_TYPE {type, value}}
                text = _any_text(_pointer(value + 8))
                found["upn"].append(b"" if text is None else text.encode())
        elif kind in _KINDS:
            size = lib.ASN1_STRING_length(ctypes.c_void_p(value))
            data = lib.ASN1_STRING_get0_data(ctypes.c_void_p(value))
            found[_KINDS[kind]].append(ctypes.string_at(data, size))
    return {kind: tuple(values) for kind, values in found.items()}
