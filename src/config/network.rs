//! Lists of networks: `["10.0.0.0/8", "192.0.2.7"]`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    diagnostic::{Fault, Place},
    reader::{Table, Text},
};

/// Reads a list of networks, which may be empty; `None` where the key is absent.
pub(super) fn read(table: &mut Table<'_>, key: &'static str) -> Option<Vec<(IpNet, Place)>> {
    let texts = table.texts_or_none(key)?;
    let mut networks = Vec::with_capacity(texts.len());
    for Text { text, place } in texts {
        match parse(text) {
            Ok(network) => networks.push((network, place)),
            Err(fault) => table.context.problems.add(&place, fault),
        }
    }
    Some(networks)
}

/// Refuses networks that together hold every address of a family, however they are cut.
pub(super) fn refuse_everything(
    table: &Table<'_>,
    key: &'static str,
    networks: &[IpNet],
    hint: &str,
) {
    let whole = IpNet::aggregate(&networks.to_vec())
        .into_iter()
        .find(|network| network.prefix_len() == 0);
    if let Some(whole) = whole {
        table.fault(
            key,
            Fault::new(format!("covers {whole}: every address"), hint),
        );
    }
}

/// Whether a network holds more public addresses than one operator has proxies.
pub(super) fn is_wide(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => {
            let private = network.addr().is_private() || network.addr().is_loopback();
            network.prefix_len() < if private { 8 } else { 16 }
        }
        IpNet::V6(network) => {
            let private = network.addr().is_unique_local() || network.addr().is_loopback();
            network.prefix_len() < if private { 7 } else { 32 }
        }
    }
}

fn parse(text: &str) -> Result<IpNet, Fault> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            Fault::new(
                format!("`{text}` is not a network"),
                "an address, or an address and a prefix length: \"10.0.0.0/8\", \"2001:db8::/32\"",
            )
        })?;
    if network != network.trunc() {
        return Err(Fault::new(
            format!("`{text}` has bits beyond its prefix length"),
            format!(
                "write {}, or {} for the one address",
                network.trunc(),
                network.addr()
            ),
        ));
    }
    // Addresses are folded to IPv4 before they are compared, so such a network would hold nobody.
    if let IpNet::V6(v6) = network
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        let hint = format!(
            "write it as IPv4: {v4}/{}",
            v6.prefix_len().saturating_sub(96)
        );
        return Err(Fault::new(
            format!("`{text}` is IPv4 written as IPv6"),
            hint,
        ));
    }
    Ok(network)
}
