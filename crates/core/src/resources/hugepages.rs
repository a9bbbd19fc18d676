//! Huge pages: sizes in the API's and in the kernel's words.

use rubelet_api::quantity;

use super::amount::Amount;
use super::sum::Amounts;

/// The start of the resource names, before the page size.
pub const PREFIX: &str = "hugepages-";

/// The page size in bytes that a resource name such as `hugepages-2Mi` means; `None` for other resources.
pub fn page_size(resource: &str) -> Option<u64> {
    let bytes = Amount::parse(resource.strip_prefix(PREFIX)?)?.units();
    u64::try_from(bytes).ok().filter(|size| *size > 0)
}

/// The resource's name of a page size: `hugepages-2Mi`.
pub fn resource_name(page_size_bytes: u64) -> String {
    format!("{PREFIX}{}", quantity::Amount::bytes(i64::try_from(page_size_bytes).unwrap_or(i64::MAX)))
}

/// The kernel's name of a page size, as in `hugetlb.2MB.limit_in_bytes`.
pub fn kernel_name(page_size_bytes: u64) -> String {
    let mut size = page_size_bytes;
    let mut unit = 0;
    while size >= 1024 && size.is_multiple_of(1024) && unit < 4 {
        size /= 1024;
        unit += 1;
    }
    format!("{size}{}", ["B", "KB", "MB", "GB", "TB"][unit])
}

/// Limit for each page size of the machine, in its order: what is asked for, else 0.
pub fn limits(amounts: &Amounts, page_sizes: &[u64]) -> Vec<(u64, i64)> {
    let asked = |size: u64| {
        amounts.iter().find(|(name, _)| page_size(name) == Some(size)).map_or(0, |(_, amount)| amount.units())
    };
    page_sizes.iter().map(|size| (*size, asked(*size))).collect()
}

#[cfg(test)]
mod tests {
    use super::{kernel_name, page_size, resource_name};

    #[test]
    fn page_sizes_have_a_name_in_the_api_and_one_in_the_kernel() {
        for (resource, bytes, name) in [
            ("hugepages-2Mi", 2 << 20, "2MB"),
            ("hugepages-1Gi", 1 << 30, "1GB"),
            ("hugepages-64Ki", 64 << 10, "64KB"),
            ("hugepages-16Gi", 16 << 30, "16GB"),
        ] {
            assert_eq!(page_size(resource), Some(bytes));
            assert_eq!(kernel_name(bytes), name);
            assert_eq!(resource_name(bytes), resource);
        }
        assert_eq!(page_size("memory"), None);
        assert_eq!(page_size("hugepages-x"), None);
    }
}
