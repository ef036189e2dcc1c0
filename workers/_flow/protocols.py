"""The numbers of IP protocols by name: the keywords of IANA's registry, and other names that collectors write."""

from __future__ import annotations

from collections.abc import Mapping

_KEYWORDS = (
    "HOPOPT", "ICMP", "IGMP", "GGP", "IPv4", "ST", "TCP", "CBT", "EGP", "IGP", "BBN-RCC-MON", "NVP-II", "PUP", "ARGUS",
    "EMCON", "XNET", "CHAOS", "UDP", "MUX", "DCN-MEAS", "HMP", "PRM", "XNS-IDP", "TRUNK-1", "TRUNK-2", "LEAF-1",
    "LEAF-2", "RDP", "IRTP", "ISO-TP4", "NETBLT", "MFE-NSP", "MERIT-INP", "DCCP", "3PC", "IDPR", "XTP", "DDP",
    "IDPR-CMTP", "TP++", "IL", "IPv6", "SDRP", "IPv6-Route", "IPv6-Frag", "IDRP", "RSVP", "GRE", "DSR", "BNA", "ESP",
    "AH", "I-NLSP", "SWIPE", "NARP", "Min-IPv4", "TLSP", "SKIP", "IPv6-ICMP", "IPv6-NoNxt", "IPv6-Opts",
    "any host internal protocol", "CFTP", "any local network", "SAT-EXPAK", "KRYPTOLAN", "RVD", "IPPC",
    "any distributed file system", "SAT-MON", "VISA", "IPCV", "CPNX", "CPHB", "WSN", "PVP", "BR-SAT-MON", "SUN-ND",
    "WB-MON", "WB-EXPAK", "ISO-IP", "VMTP", "SECURE-VMTP", "VINES", "IPTM", "NSFNET-IGP", "DGP", "TCF", "EIGRP",
    "OSPFIGP", "Sprite-RPC", "LARP", "MTP", "AX.25", "IPIP", "MICP", "SCC-SP", "ETHERIP", "ENCAP",
    "any private encryption scheme", "GMTP", "IFMP", "PNNI", "PIM", "ARIS", "SCPS", "QNX", "A/N", "IPComp", "SNP",
    "Compaq-Peer", "IPX-in-IP", "VRRP", "PGM", "any 0-hop protocol", "L2TP", "DDX", "IATP", "STP", "SRP", "UTI", "SMP",
    "SM", "PTP", "ISIS over IPv4", "FIRE", "CRTP", "CRUDP", "SSCOPMCE", "IPLT", "SPS", "PIPE", "SCTP", "FC",
    "RSVP-E2E-IGNORE", "Mobility Header", "UDPLite", "MPLS-in-IP", "manet", "HIP", "Shim6", "WESP", "ROHC", "Ethernet",
    "AGGFRAG", "NSH", "Homa", "BIT-EMU",
)  # fmt: skip
"""In the order of their numbers, from 0."""
PROTOCOLS: Mapping[str, int] = {name.upper(): number for number, name in enumerate(_KEYWORDS)} | {
    "ICMPV6": 58, "ICMP6": 58, "IPV6ICMP": 58, "OSPF": 89, "ISIS": 124, "IS-IS": 124, "UDP-LITE": 136, "IPENCAP": 4,
    "RSPF": 73, "CARP": 112, "MOBILITY-HEADER": 135, "ARGUS (DEPRECATED)": 13, "SWIPE (DEPRECATED)": 53,
    "MICP (DEPRECATED)": 95, "SM (DEPRECATED)": 122, "MOBILE": 55, "TTP": 84, "RESERVED": 255,
}  # fmt: skip
"""Upper-case name → number."""
