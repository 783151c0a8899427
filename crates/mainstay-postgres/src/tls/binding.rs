//! `tls-server-end-point` (RFC 5929): the hash of the server's certificate that SCRAM mixes into
//! the login, so that a man in the middle with a certificate of his own cannot pass it on.
//!
//! The hash is the one of the certificate's own signature, SHA-256 where that is MD5 or SHA-1.
//! Only enough of the certificate is read to find that out. Signatures of other families have no
//! agreed hash; such a server is logged in to without binding, which `channel_binding=require`
//! refuses.

use sha2::{Digest, Sha256};

/// The hash for this certificate, if its signature belongs to the SHA-256 family.
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_algorithm(certificate)?;
    HASHED_WITH_SHA256
        .contains(&algorithm)
        .then(|| Sha256::digest(certificate).to_vec())
}

/// Object identifiers, in DER, of signatures that are bound with SHA-256.
const HASHED_WITH_SHA256: [&[u8]; 5] = [
    // md5WithRSAEncryption
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04],
    // sha1WithRSAEncryption
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05],
    // sha256WithRSAEncryption
    &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b],
    // ecdsa-with-SHA1
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01],
    // ecdsa-with-SHA256
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, … }, … }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (body, _) = element(SEQUENCE, certificate)?;
    let (_, rest) = element(SEQUENCE, body)?;
    let (algorithm, _) = element(SEQUENCE, rest)?;
    element(OBJECT_IDENTIFIER, algorithm).map(|(identifier, _)| identifier)
}

/// The content of the DER element at the beginning, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = if short < 0x80 {
        (usize::from(short), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
        // Four bytes are 4 GiB; no certificate is longer.
        if bytes.len() > 4 {
            return None;
        }
        (
            bytes
                .iter()
                .fold(0, |length, &byte| length << 8 | usize::from(byte)),
            rest,
        )
    };
    if found != tag {
        return None;
    }
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outermost shape: an empty `tbsCertificate` and an algorithm.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat()
        };
        let algorithm = wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, identifier));
        wrap(SEQUENCE, &[wrap(SEQUENCE, b""), algorithm].concat())
    }

    #[test]
    fn the_sha256_family_is_bound_and_others_are_not() {
        let bound = certificate(HASHED_WITH_SHA256[4]);
        assert_eq!(end_point(&bound), Some(Sha256::digest(&bound).to_vec()));
        let ed25519 = [0x2b, 0x65, 0x70];
        assert_eq!(end_point(&certificate(&ed25519)), None);
    }

    #[test]
    fn a_broken_certificate_is_not_bound() {
        let whole = certificate(HASHED_WITH_SHA256[2]);
        for length in 0..whole.len() {
            assert_eq!(end_point(&whole[..length]), None, "{length}");
        }
        assert_eq!(end_point(&[0x30, 0x89, 1, 2, 3]), None);
    }
}
