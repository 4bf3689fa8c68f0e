"""The Huffman code of HPACK: the lengths of the codes, by byte, EOS last (RFC 7541 Appendix B)."""

LENGTHS: tuple[int, ...]
